"""What an engine takes of its GPU's memory. Weights, caches and buffers follow from its shapes; the constants below
were fitted to what the driver reports (benchmarks/gpu.py, docs/gpu.md)."""

from __future__ import annotations

from math import prod

from whisper_factory.backends.cuda import layout
from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.backends.onnxruntime_cuda import logmel
from whisper_factory.backends.onnxruntime_cuda.limits import MOST_GRAPHS, STEP_FRAMES, TOGETHER
from whisper_factory.engine_spec import LEAST_FRAMES, LONGEST_PROMPT, EngineSpec, Precision
from whisper_factory.memory import CROSS_KV, MB, SELF_KV, Part
from whisper_factory.whisper.dimensions import WINDOW_FRAMES
from whisper_factory.whisper.tensors import graph_of, is_quantized, tensor_shapes

HALF, FLOAT, INT64 = 2, 4, 8
CONTEXT = 552 * MB  # CUDA's context, on an H100
LIBRARIES = 275 * MB  # kernels of ONNX Runtime, cuBLAS and cuDNN, and their workspaces
LIVE = 22  # float16 numbers for every encoder position and channel, at the most
STEP = 6  # float32 numbers for every row and token of the vocabulary, in a step
GRAPH = MB // 2  # of a captured CUDA graph


def weights(spec: EngineSpec) -> dict[str, int]:
    """Bytes of the graphs' constants: "encoder", with the projection of cross-attention's keys and values, "decoder",
    and the token "embedding", which is the output head too and there once."""
    sums = {"encoder": spec.profile.end_anchor * spec.dimensions.n_audio_state * HALF, "decoder": 0, "embedding": 0}
    for name, shape in tensor_shapes(spec.dimensions).items():
        sums[graph_of(name)] += _stored(name, shape, spec.precision)
    return sums


def _stored(name: str, shape: tuple[int, ...], precision: Precision) -> int:
    if precision.bits and is_quantized(name):
        layer = name.removesuffix(".weight")
        groups = precision.scales_of(layer, shape[1])
        scales = groups if groups > 1 else shape[1] // block_size(shape[1])
        return prod(shape) * precision.bits_of(layer) // 8 + shape[0] * scales * HALF
    return prod(shape) * HALF


def token_bytes(spec: EngineSpec) -> int:
    """Keys and values of one token of one row, or of one encoder position of one window, in all layers."""
    return 2 * spec.dimensions.n_text_layer * spec.dimensions.n_text_state * HALF


def footprint(spec: EngineSpec, turn_frames: int | None = None) -> list[Part]:
    """Parts of the GPU's memory, in bytes; see `backends.Backend.footprint`.

    Args:
        turn_frames: makes no difference but to a paged cache: all else is taken for the longest audio.
    """
    stored, name = weights(spec), spec.precision.name
    fixed = {
        f"weights, encoder ({name})": stored["encoder"],
        f"weights, decoder ({name})": stored["decoder"],
        "embedding and output head (float16)": stored["embedding"],
        "audio, log-mel, logits": _buffers(spec),
    }
    driver = {"activations": _activations(spec), "kernels and workspaces of the libraries": LIBRARIES,
              "CUDA context (differs between GPUs)": CONTEXT}
    one, lengths = GRAPH * _graphs_of_a_length(spec), _lengths(spec)
    return [*(Part(part, size, size) for part, size in fixed.items()), *_caches(spec, turn_frames),
            *(Part(part, size, size) for part, size in driver.items()),
            Part("CUDA graphs", one, min(one * lengths, GRAPH * MOST_GRAPHS))]


def _caches(spec: EngineSpec, turn_frames: int | None) -> list[Part]:
    """Keys and values, and room to reorder them: taken whole, or in granules for the rows and windows that there are.
    Only beams change places so that one has to be put aside."""
    profile, aside = spec.profile, "room to reorder sequences"
    if spec.kv_cache.mode == "contiguous":
        sizes = {SELF_KV: spec.max_rows * spec.max_tokens * token_bytes(spec),
                 CROSS_KV: profile.max_batch_size * spec.max_cross_len * token_bytes(spec),
                 aside: max(spec.max_tokens, spec.max_cross_len) * token_bytes(spec)}
        return [Part(part, size, size) for part, size in sizes.items()]
    each = layout.sizes_of(spec)
    window = _positions(spec, turn_frames) * each.position
    row = each.tensors * each.row if profile.max_beam_width > 1 else 0
    counts = {SELF_KV: len(layout.self_layout(spec).behind(layout.pool_rows(spec) * each.row)),
              CROSS_KV: len(layout.cross_layout(spec).behind(profile.max_batch_size * window)),
              aside: -(-row // layout.GRANULE)}
    return [Part(part, 0, count * layout.GRANULE) for part, count in counts.items()]


def _positions(spec: EngineSpec, turn_frames: int | None) -> int:
    """Encoder positions of the longest window."""
    longest = spec.window_frames
    if turn_frames is not None:
        asked = spec.encoder_frames(turn_frames, spec.profile.padding_strategy)
        longest = min(longest, -(-asked // STEP_FRAMES) * STEP_FRAMES)
    elif spec.profile.padding_strategy != "max":
        return spec.max_cross_len
    return longest // 2 + (spec.profile.end_anchor if longest < WINDOW_FRAMES else 0)


def _lengths(spec: EngineSpec) -> int:
    """Lengths of window that clips may have: one where all are as long as the engine's, else steps from the least."""
    if spec.profile.padding_strategy == "max":
        return 1
    return max(1, -(-spec.window_frames // STEP_FRAMES) - LEAST_FRAMES // STEP_FRAMES)


def _graphs_of_a_length(spec: EngineSpec) -> int:
    """Log-mel and encoder of each TOGETHER windows, the same of those that take others' places, and steps of all rows,
    half of them, a quarter ..."""
    batch = spec.profile.max_batch_size
    return 1 + -(-batch // TOGETHER) + (2 if batch > 1 else 0) + batch.bit_length()


def _buffers(spec: EngineSpec) -> int:
    """Of hearing.py and session.py."""
    sizes, together = spec.dimensions, min(TOGETHER, spec.profile.max_batch_size)
    audio = together * logmel.samples(spec.window_frames) * FLOAT
    mel = together * sizes.n_mels * spec.window_frames * FLOAT
    rows = spec.max_rows * (sizes.n_vocab * FLOAT + min(LONGEST_PROMPT, spec.max_tokens) * INT64 + INT64 + 2 * FLOAT)
    return audio + mel + rows + 2 * sizes.n_vocab * FLOAT


def _activations(spec: EngineSpec) -> int:
    """What the sessions' arenas grow to: log-mel and the encoder of TOGETHER windows, a step of all rows."""
    sizes, together = spec.dimensions, min(TOGETHER, spec.profile.max_batch_size)
    log_mel = together * spec.window_frames * (3 * logmel.BLOCKS * 160 + 2 * 402) * FLOAT // 2
    encoder = LIVE * together * spec.max_cross_len * sizes.n_audio_state * HALF
    return log_mel + encoder + STEP * spec.max_rows * sizes.n_vocab * FLOAT
