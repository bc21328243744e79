"""What both runtimes have in common: the windows they are given, and the answers they give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.requests import check_mel
from whisper_factory.backends.tensorrt_llm.limits import full_window
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import WINDOW_FRAMES


def fit(mel: NDArray[np.float32], spec: EngineSpec) -> NDArray[np.float32]:
    """Windows as the encoder takes them: at 3000 frames where it takes no other.

    Args:
        mel: [batch, n_mels, frames], whose last frame is silence if there are fewer than 3000: it is repeated.

    Raises:
        UserError: more or longer windows than the engine was built for, or another number of mels.
    """
    check_mel(spec, mel.shape)
    if full_window(spec) and mel.shape[2] < WINDOW_FRAMES:
        mel = np.pad(mel, ((0, 0), (0, 0), (0, WINDOW_FRAMES - mel.shape[2])), mode="edge")
    return np.ascontiguousarray(mel, np.float32)


def check_lengths(prompts: NDArray[np.int64], max_new_tokens: int, num_beams: int, spec: EngineSpec) -> None:
    """Refuse what the decoder was not built for: the runtimes would read or write past their buffers."""
    length = prompts.shape[1] + max_new_tokens
    if length > spec.max_tokens:
        raise UserError(f"{length} tokens with the prompt, this engine holds {spec.max_tokens} "
                        f"(profile.max_new_tokens and the prompt)")
    if not 1 <= num_beams <= spec.profile.max_beam_width:
        raise UserError(f"num_beams={num_beams}: this engine takes 1 to {spec.profile.max_beam_width} "
                        f"(profile.max_beam_width)")


def end_token(spec: EngineSpec) -> int:
    """<|endoftext|>: the first token after the text vocabulary."""
    return 50257 if spec.dimensions.is_multilingual else 50256


def answers(rows: Sequence[Sequence[Sequence[int]]], prompts: NDArray[np.int64], spec: EngineSpec) -> list[list[int]]:
    """The best beam of each window, without its prompt and without <|endoftext|> and what follows.

    Args:
        rows: [batch][beams][tokens], as the runtimes return them: the prompt first, padded with <|endoftext|>.
    """
    end, found = end_token(spec), []
    for beams, prompt in zip(rows, prompts.tolist(), strict=True):
        tokens = list(beams[0])
        if tokens[: len(prompt)] == prompt:
            tokens = tokens[len(prompt):]
        found.append(tokens[: tokens.index(end)] if end in tokens else tokens)
    return found
