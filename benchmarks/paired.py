"""Word error rates of the same clips heard in two ways: the difference, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whisper_factory.whisper.normalize import edit_distance, words

DRAWS, CONFIDENCE, COINS = 10_000, 95.0, 100_000


@dataclass(frozen=True)
class Difference:
    """In percentage points: how much higher the second's WER is, and the interval of a bootstrap."""

    first: float
    second: float
    low: float
    high: float

    @property
    def points(self) -> float:
        """Second minus first."""
        return self.second - self.first

    def __str__(self) -> str:
        return f"{self.points:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def errors(said: Sequence[str], heard: Sequence[str]) -> list[int]:
    """Word errors of each clip."""
    return [edit_distance(words(text), words(found)) for text, found in zip(said, heard, strict=True)]


def difference(said: Sequence[str], first: Sequence[str], second: Sequence[str], groups: Sequence[str]) -> Difference:
    """Compare two ways of hearing. Drawn again and again are not clips but groups: recordings of one sentence by other
    voices, or with noise, are no independent witnesses."""
    counts = [[len(words(text)) for text in said], errors(said, first), errors(said, second)]
    sums = _of_groups(counts, groups)
    drawn = np.random.default_rng(0).integers(0, sums.shape[1], (DRAWS, sums.shape[1]))
    total, one, other = sums[:, drawn].sum(axis=2)
    low, high = np.percentile(100 * (other - one) / total, [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2])
    whole = sums.sum(axis=1)
    return Difference(100 * whole[1] / whole[0], 100 * whole[2] / whole[0], float(low), float(high))


def chance(said: Sequence[str], first: Sequence[str], second: Sequence[str], groups: Sequence[str]) -> float:
    """How often a difference at least this large comes about if both ways of hearing are equally good: if it is a coin
    that says, for each group, which of them made which errors.

    Where few clips differ, and all the same way, an interval of `difference` ends short of zero, as almost no draw
    leaves them all out. Here four such sentences have 2 of 16 chances, and no less.
    """
    one, other = _of_groups([errors(said, first), errors(said, second)], groups)
    apart = (other - one)[other != one]
    sides = np.random.default_rng(0).choice([-1.0, 1.0], (COINS, len(apart)))
    return float((1 + np.sum(np.abs(sides @ apart) >= abs(apart.sum()))) / (1 + COINS))


def holm(chances: Sequence[float]) -> list[float]:
    """The same for comparisons that were made together: the chance that any of them looks so by chance alone."""
    order = np.argsort(chances)
    raised = np.maximum.accumulate([chances[place] * (len(chances) - rank) for rank, place in enumerate(order)])
    found = np.empty(len(chances))
    found[order] = np.minimum(raised, 1.0)
    return [float(one) for one in found]


def _of_groups(counts: Sequence[Sequence[int]], groups: Sequence[str]) -> NDArray[np.float64]:
    """Sums [kinds, groups] of counts of clips [kinds, clips]."""
    names = sorted(set(groups))
    sums = np.zeros((len(counts), len(names)))
    np.add.at(sums, (slice(None), [names.index(group) for group in groups]), np.array(counts, np.float64))
    return sums
