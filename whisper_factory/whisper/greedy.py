"""Greedy search, and what every search needs: which tokens are forbidden, and which windows still wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from whisper_factory.backends import Utterance
    from whisper_factory.whisper.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sequenced:
    """What a search found for one window."""

    tokens: list[int]
    sum_logprob: float
    ended: bool  # by <|endoftext|>


class Suppression:
    """Which tokens may not be chosen, as indices; OpenAI's SuppressTokens and SuppressBlank."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._always = np.asarray(sorted(tokenizer.suppressed_tokens), np.int64)
        first = {*tokenizer.suppressed_tokens, *tokenizer.blank_tokens}
        self._at_first = np.asarray(sorted(first), np.int64)

    def apply(self, logits: NDArray[np.float32], first: bool) -> None:
        """Set the logits [rows, n_vocab] of those tokens to minus infinity, in place."""
        logits[:, self._at_first if first else self._always] = -np.inf


def greedy(
    utterance: Utterance, prompts: NDArray[np.int64], rules: Suppression, eot: int, limits: Sequence[int]
) -> list[Sequenced]:
    """The most probable next token, again and again.

    Args:
        prompts: [windows, length].
        limits: the most tokens of each window, 1 or more.
    """
    count = len(prompts)
    chosen: list[list[int]] = [[] for _ in range(count)]
    sums = np.zeros(count, np.float32)  # as OpenAI's
    over = np.zeros(count, bool)
    live = np.arange(count)  # the window of each row
    feed = prompts
    while True:
        logits = utterance.decode(feed)
        rules.apply(logits, first=feed is prompts)
        best, logprobs = _most_probable(logits)
        for row in np.flatnonzero(~over[live]):
            window = live[row]
            chosen[window].append(int(best[row]))
            sums[window] += logprobs[row]
            over[window] = best[row] == eot or len(chosen[window]) >= limits[window]
        if over.all():
            break
        rows = rows_to_keep(over[live])
        if len(rows) < len(live):
            utterance.select(rows)
            live = live[rows]
        feed = best[rows, None]  # a window that is over goes on unheard until it is dropped
    ended = [tokens[-1] == eot for tokens in chosen]
    return [Sequenced(tokens[:-1] if end else tokens, float(total), end)
            for tokens, total, end in zip(chosen, sums, ended, strict=True)]


def _most_probable(logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best token of each row and its log-probability. Uses the logits up: a copy would cost more than this."""
    best = logits.argmax(axis=1)
    logits -= logits[np.arange(len(best)), best][:, None]
    np.exp(logits, out=logits)
    return best, -np.log(logits.sum(axis=1))


def rows_to_keep(over: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The windows to decode on: those that are not over, once they are half or fewer; till then all.

    Dropping a window copies the cross-attention KV of those that stay, which costs as much as a few tokens; so it
    is done when it halves the work.
    """
    waiting = np.flatnonzero(~over)
    return waiting if 2 * len(waiting) <= len(over) else np.arange(len(over))
