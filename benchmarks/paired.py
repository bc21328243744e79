"""Word error rates of the same clips heard in two ways: the difference, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whisper_factory.whisper.normalize import edit_distance, words

DRAWS, CONFIDENCE = 10_000, 95.0


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
    counts = np.array([[len(words(text)) for text in said], errors(said, first), errors(said, second)], np.float64)
    names = sorted(set(groups))
    sums = np.zeros((3, len(names)))
    np.add.at(sums, (slice(None), [names.index(group) for group in groups]), counts)
    drawn = np.random.default_rng(0).integers(0, len(names), (DRAWS, len(names)))
    total, one, other = sums[:, drawn].sum(axis=2)
    low, high = np.percentile(100 * (other - one) / total, [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2])
    whole = counts.sum(axis=1)
    return Difference(100 * whole[1] / whole[0], 100 * whole[2] / whole[0], float(low), float(high))
