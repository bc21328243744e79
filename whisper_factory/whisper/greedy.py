"""Greedy search: the most probable next token, again and again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whisper_factory.whisper.search import Sequenced


class Greedy:
    """One sequence a window. See `search.Search`."""

    width = count = 1

    def __init__(self, eot: int, limits: Sequence[int]) -> None:
        """
        Args:
            limits: the most tokens of each window, 1 or more.
        """
        self.over = np.zeros(len(limits), np.bool_)
        self._chosen: list[list[int]] = [[] for _ in limits]
        self._sums = np.zeros(len(limits), np.float32)  # as OpenAI's
        self._eot, self._limits = eot, limits

    def rank(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best token of the only row."""
        token, logprob = most_probable_one(logits[0])
        return np.array([[token]]), np.array([[logprob]])

    def choose(self, window: int, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]
               ) -> tuple[list[int], list[int]]:
        """Its best token."""
        token, logprob = int(tokens[0, 0]), logprobs[0, 0]
        self._chosen[window].append(token)
        self._sums[window] += logprob
        self.over[window] = token == self._eot or len(self._chosen[window]) >= self._limits[window]
        return [0], [token]

    def results(self) -> list[Sequenced]:
        """What was found, of every window."""
        ended = [tokens[-1] == self._eot for tokens in self._chosen]
        return [Sequenced(tokens[:-1] if end else tokens, float(total), end)
                for tokens, total, end in zip(self._chosen, self._sums, ended, strict=True)]


def most_probable_one(logits: NDArray[np.float32]) -> tuple[int, np.float32]:
    """The best token of a row and its log-probability. Uses the logits up: a copy would cost more than this."""
    best = int(logits.argmax())
    logits -= logits[best]
    np.exp(logits, out=logits)
    return best, -np.log(logits.sum())
