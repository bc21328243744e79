"""Which windows are decoded together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class Framed(Protocol):
    """A window, as far as its batch depends on it."""

    audio: NDArray[np.float32]
    frames: int  # that the encoder is to see


Job = TypeVar("Job", bound=Framed)


def batches(jobs: Iterable[Job], size: int, even: bool) -> Iterator[list[Job]]:
    """Windows in batches: neighbours in length together, so that few frames are padding.

    Args:
        even: sort by the audio's length too: those of a batch then end after about as many tokens (half an hour of
            speech in eights: 11 % fewer steps). A pool of pages is better shared by windows of which some end early.
    """
    ordered = sorted(jobs, key=lambda job: (job.frames, len(job.audio) if even else 0))
    for start in range(0, len(ordered), size):
        yield ordered[start:start + size]


def frames_of(batch: Sequence[Framed]) -> int:
    """What the encoder sees of each window of a batch: as much as its longest needs."""
    return max(job.frames for job in batch)


def streams(made: Iterable[list[Job]]) -> Iterator[list[Job]]:
    """Batches of which the encoder sees the same number of frames as one, the longest audio first: what ends last is
    then not begun last."""
    for _, alike in groupby(made, key=frames_of):
        yield [job for batch in alike for job in batch][::-1]
