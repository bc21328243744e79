"""The shapes that an engine is built for: of every input the least, the most likely and the largest."""

from __future__ import annotations

from whisper_factory.backends.cuda.kvcache import names
from whisper_factory.backends.tensorrt.files import STAGES
from whisper_factory.backends.tensorrt.limits import least_frames
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # least, most likely, largest
ENCODER, DECODER = STAGES


def ranges(spec: EngineSpec) -> dict[str, dict[str, Range]]:
    """By stage and input. What is most likely: whole windows, full batches, one new token."""
    return {ENCODER: _encoder(spec), DECODER: _decoder(spec)}


def _encoder(spec: EngineSpec) -> dict[str, Range]:
    batch, mels, frames = spec.profile.max_batch_size, spec.dimensions.n_mels, spec.window_frames
    whole = (batch, mels, frames)
    return {"mel": ((1, mels, least_frames(spec)), whole, whole)}


def _decoder(spec: EngineSpec) -> dict[str, Range]:
    sizes, batch, rows, capacity = spec.dimensions, spec.profile.max_batch_size, spec.max_rows, spec.max_tokens
    prompt, heads, size = min(LONGEST_PROMPT, capacity), sizes.n_text_head, sizes.head_size
    cross: Range = ((1, heads, _length(spec, least_frames(spec)), size),
                    (batch, heads, _length(spec, spec.window_frames), size), (batch, heads, spec.max_cross_len, size))
    past: Range = ((1, heads, capacity, size), (rows, heads, capacity, size), (rows, heads, capacity, size))
    return {
        "tokens": ((1, 1), (rows, 1), (rows, prompt)),
        "positions": ((1,), (1,), (prompt,)),
        "mask": ((1, capacity + 1), (1, capacity + 1), (prompt, capacity + prompt)),
        **dict.fromkeys(names("cross", sizes.n_text_layer), cross),
        **dict.fromkeys(names("past", sizes.n_text_layer), past),
    }


def _length(spec: EngineSpec, frames: int) -> int:
    """Cross-attention's length of a window."""
    return frames // 2 + (spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)
