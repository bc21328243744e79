"""Beam search as OpenAI's: patience 1, candidates ranked by their log-probability over their length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whisper_factory.whisper.search import Sequenced

GROUPS = 512


class Beams:
    """The beams of one window."""

    def __init__(self, width: int, eot: int) -> None:
        self.beams: list[tuple[int, ...]] = [()]  # width of them after the first step
        self.sums = np.zeros(1, np.float32)
        self._finished: dict[tuple[int, ...], float] = {}  # in the order they were found
        self._width, self._eot = width, eot

    @property
    def complete(self) -> bool:
        """Whether enough sequences have ended; more steps would not change the result."""
        return len(self._finished) >= self._width

    def advance(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> list[int]:
        """Extend the beams by one token.

        Args:
            tokens: [beams, width + 1], the most probable ones, best first.
            logprobs: theirs.

        Returns:
            For each new beam, the old one it extends.
        """
        totals = (self.sums[:, None] + logprobs).ravel().tolist()
        choices = tokens.ravel().tolist()
        ranked = sorted(range(len(totals)), key=totals.__getitem__, reverse=True)  # stable, as OpenAI's
        beams: list[tuple[int, ...]] = []
        sums: list[float] = []
        sources: list[int] = []
        for index in ranked:
            source = index // tokens.shape[1]
            if choices[index] == self._eot:
                if not self.complete:
                    self._finished[self.beams[source]] = totals[index]
                continue
            beams.append((*self.beams[source], choices[index]))
            sums.append(totals[index])
            sources.append(source)
            if len(beams) == self._width:
                break
        self.beams, self.sums = beams, np.asarray(sums, np.float32)
        return sources

    def result(self) -> Sequenced:
        """The best sequence so far. Where too few have ended, the most probable unfinished ones compete too."""
        candidates = [Sequenced(list(tokens), total, True) for tokens, total in self._finished.items()]
        for index in np.argsort(self.sums)[::-1]:
            if len(candidates) >= self._width:
                break
            candidates.append(Sequenced(list(self.beams[index]), float(self.sums[index]), False))
        return max(candidates, key=lambda sequence: sequence.sum_logprob / len(sequence.tokens))


class BeamSearch:
    """`width` sequences a window. See `search.Search`.

    The prompt is decoded once a window, and the rows become `width` a window after it: OpenAI decodes it `width`
    times, with the same logits each time.
    """

    def __init__(self, width: int, eot: int, limits: Sequence[int]) -> None:
        """
        Args:
            limits: the most tokens of each window, 1 or more.
        """
        self.width, self.count = width, width + 1
        self.over = np.zeros(len(limits), np.bool_)
        self._beams = [Beams(width, eot) for _ in limits]
        self._steps = np.zeros(len(limits), np.int64)
        self._results: dict[int, Sequenced] = {}
        self._limits = limits

    def rank(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """One more of each row than there are beams, as one may end."""
        return most_probable(logits, self.count)

    def choose(self, window: int, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]
               ) -> tuple[list[int], list[int]]:
        """Its best extensions."""
        beams = self._beams[window]
        sources = beams.advance(tokens, logprobs)
        self._steps[window] += 1
        if beams.complete or self._steps[window] >= self._limits[window]:
            self._results[window] = beams.result()
            self.over[window] = True
        return sources, [tokens[-1] for tokens in beams.beams]

    def results(self) -> list[Sequenced]:
        """What was found, of every window."""
        return [self._results[window] for window in range(len(self._limits))]


def most_probable(logits: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` best tokens of each row [rows, n_vocab], best first, and their log-probabilities. Uses logits up.

    Sorting a vocabulary takes longer than decoding a token. So: the maxima of GROUPS groups of tokens are found
    first, and the count-th of them is a value that at least `count` tokens reach and few others do; and those lie in
    the groups whose maxima reach it.
    """
    rows, vocabulary = logits.shape
    whole = vocabulary - vocabulary % GROUPS
    grouped = logits[:, :whole].reshape(rows, -1, GROUPS)
    maxima = grouped.max(axis=1)
    bounds = np.partition(maxima, GROUPS - count, axis=1)[:, GROUPS - count]
    best = np.empty((rows, count), np.int64)
    for row, bound in enumerate(bounds):
        groups = np.flatnonzero(maxima[row] >= bound)
        place, group = np.nonzero(grouped[row][:, groups] >= bound)  # in the order of the tokens
        rest = whole + np.flatnonzero(logits[row, whole:] >= bound)
        reaching = np.concatenate([place * GROUPS + groups[group], rest])
        best[row] = reaching[np.argsort(-logits[row, reaching], kind="stable")[:count]]
    values = np.take_along_axis(logits, best, axis=1)
    peaks = values[:, :1].copy()
    logits -= peaks
    np.exp(logits, out=logits)
    return best, values - peaks - np.log(logits.sum(axis=1, keepdims=True))
