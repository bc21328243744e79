"""What one set of weights makes of a window: states, predictions, and a transcript by greedy search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from whisper_factory.calibration import forward
from whisper_factory.calibration.passing import ANCHOR
from whisper_factory.whisper.dimensions import Dimensions

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]

NEAR = 5  # tokens by which a transcript may be ahead of its draft, or behind


def residuals(mel: Floats, tensors: Tensors, sizes: Dimensions) -> list[Floats]:
    """What each of the encoder's blocks sees of a window [frames / 2, state], and what the last one leaves."""
    found = [forward.stem(mel, tensors)]
    for layer in range(sizes.n_audio_layer):
        found.append(_block(found[-1].copy(), layer, tensors, sizes))
    return found


def states(x: Floats, first: int, tensors: Tensors, sizes: Dimensions) -> Floats:
    """The encoder's states, from what block `first` sees."""
    x = x.copy()
    for layer in range(first, sizes.n_audio_layer):
        x = _block(x, layer, tensors, sizes)
    return forward.layer_norm(x, tensors, "encoder.ln_post")


def _block(x: Floats, layer: int, tensors: Tensors, sizes: Dimensions) -> Floats:
    x += forward.self_attention(x, tensors, f"encoder.blocks.{layer}", sizes.n_audio_head)
    x += forward.mlp(x, tensors, f"encoder.blocks.{layer}")
    return x


def seen(found: Floats, silence: Floats, sizes: Dimensions) -> Floats:
    """What the decoder sees of a window's states: after a short window's come the last of silence's, as in engines."""
    return np.concatenate([found, silence[-ANCHOR:]]) if len(found) < sizes.n_audio_ctx else found


def logits(tokens: Sequence[int], cross: forward.KeysValues, tensors: Tensors, sizes: Dimensions, first: int) -> Floats:
    """Of what follows each of the tokens, from the one at `first` on [tokens - first, n_vocab]."""
    states = forward.decode(np.asarray(tokens, np.int64), cross, tensors, sizes.n_text_head)
    found: Floats = states[first:] @ tensors["decoder.token_embedding.weight"].T
    return found


def greedy(best: Callable[[list[int], int], Sequence[int]], eot: int, limit: int, draft: Sequence[int]) -> list[int]:
    """A transcript, token after token. Those of a draft are tried many at once: a matter of time alone.

    Args:
        best: (tokens, done) -> what is chosen after the first `done` of them, after one more, and so on, and after all.
        limit: tokens at the most.
        draft: what may well be said.
    """
    found: list[int] = []
    at = 0  # in the draft
    while len(found) < limit:
        tried = [*found, *draft[at:]][: limit - 1]
        for token in best(tried, len(found)):
            if token == eot:
                return found
            found.append(token)
            if len(found) > len(tried) or token != tried[len(found) - 1]:
                at = _nearest(draft, token, at) + 1
                break
            at += 1
    return found


def _nearest(draft: Sequence[int], token: int, at: int) -> int:
    """Where a token is in a draft, that was not the one at `at`: a few before or behind it, or in its place."""
    near = range(max(0, at - NEAR), min(len(draft), at + NEAR + 1))
    return min((place for place in near if draft[place] == token), key=lambda place: abs(place - at), default=at)


def log_softmax(values: Floats) -> Floats:
    """Natural logarithms of the probabilities of each row; in place."""
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def divergence(exact: Floats, other: Floats) -> float:
    """Kullback-Leibler divergence in nats, summed over rows of log-probabilities."""
    return float((np.exp(exact) * (exact - other)).sum(dtype=np.float64))
