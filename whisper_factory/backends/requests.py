"""What a runtime is asked, checked against what its engine was built for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import WINDOW_FRAMES


def check_mel(spec: EngineSpec, shape: tuple[int, ...], least: int = 2) -> None:
    """Raise UserError for log-mel that is not [batch, n_mels, frames] of at most the engine's windows and frames.

    Args:
        least: frames that a window must have.
    """
    if len(shape) != 3 or shape[1] != spec.dimensions.n_mels:
        raise UserError(f"log-mel of shape {shape} given, this engine ({spec.model}) takes "
                        f"[batch, {spec.dimensions.n_mels}, frames]")
    batch, _, frames = shape
    if not 1 <= batch <= spec.profile.max_batch_size:
        raise UserError(f"{batch} windows at once, this engine takes 1 to {spec.profile.max_batch_size}; "
                        f"build one with profile.max_batch_size={max(1, batch)}")
    if not least <= frames <= spec.window_frames or frames % 2:
        remedy = "pad it"
        if frames > spec.window_frames:
            remedy = f"padding_strategy=trim, or build one with max_input_len={min(WINDOW_FRAMES, frames)}"
        raise UserError(f"a window of {frames} frames, this engine takes an even number from {least} to "
                        f"{spec.window_frames} (profile.max_input_len={spec.profile.max_input_len}); {remedy}")


def check_tokens(spec: EngineSpec, tokens: NDArray[np.int64], rows: int, length: int,
                 longest_prompt: int | None = None) -> None:
    """Check tokens that are fed to `rows` sequences of `length`.

    Args:
        longest_prompt: None: as long as the sequences may be.

    Raises:
        UserError: the sequences, or the prompt, would be longer than the engine was built for.
        ValueError: another number of rows than there is, several tokens after the first step, no token, one that there
            is not, or closed.
    """
    if not rows:
        raise ValueError("this utterance is closed (encoding the next one closes it)")
    if tokens.ndim != 2 or tokens.shape[0] != rows or tokens.shape[1] < 1:
        raise ValueError(f"tokens of shape {tokens.shape} given, [{rows}, 1 or more] needed")
    if tokens.min() < 0 or tokens.max() >= spec.dimensions.n_vocab:
        raise ValueError(f"tokens {tokens.ravel().tolist()}: a token is 0 to {spec.dimensions.n_vocab - 1}")
    new, limit = tokens.shape[1], spec.max_tokens
    if new > 1 and length:
        raise ValueError(f"{new} tokens at once after {length}: only a prompt may be longer than 1")
    if longest_prompt is not None and new > longest_prompt:
        raise UserError(f"a prompt of {new} tokens, this engine holds {longest_prompt}")
    if length + new > limit:
        raise UserError(f"{length + new} tokens, this engine holds {limit} (the prompt and "
                        f"profile.max_new_tokens={spec.profile.max_new_tokens}); build one with more")


def windows_of(spec: EngineSpec, sources: NDArray[np.int64], rows: int, windows: int) -> NDArray[np.int64]:
    """The windows that new rows are of, in their order, where each continues former row sources[i] of `rows`.

    Raises:
        UserError: more rows than the engine was built for.
        ValueError: rows that do not exist; those of a window not adjacent, or not as many as of any other.
    """
    if sources.ndim != 1 or not len(sources) or sources.min() < 0 or sources.max() >= rows:
        raise ValueError(f"rows {sources.tolist()} of an utterance with {rows} rows")
    limit = spec.max_rows
    if len(sources) > limit:
        raise UserError(f"{len(sources)} sequences at once, this engine holds {limit} "
                        f"(profile.max_batch_size times profile.max_beam_width); build one with more")
    of_row = sources // (rows // windows)
    found: NDArray[np.int64] = of_row[np.flatnonzero(np.diff(of_row, prepend=-1))]  # of each run of equal ones
    beams = len(sources) // len(found)
    if len(set(found.tolist())) < len(found) or not np.array_equal(np.repeat(found, beams), of_row):
        raise ValueError(f"rows {sources.tolist()} are of windows {of_row.tolist()}: those of a window must be "
                         f"adjacent, and as many as of any other")
    return found
