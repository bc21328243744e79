"""Rows that branch off from each other, and windows that take each other's places: what has to be copied. NumPy only.

Beams come from beams: rows of a window hold the same keys and values, bit for bit, up to where they parted. So of a row
that another one becomes only the tokens after that are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.moves import moves


def branched(same: NDArray[np.int64], sources: NDArray[np.int64], length: int) -> tuple[list[int], NDArray[np.int64]]:
    """What is known of new rows, of which row i becomes old row sources[i].

    Args:
        same: [rows, rows], how many first tokens two rows hold in common, or fewer. Its diagonal is overwritten.
        length: tokens that are in use of each row.

    Returns:
        How many tokens each new row has where it is to be already: none where no row was. And `same`, of the new rows;
        those that come from one row have all in common, until they are fed.
    """
    np.fill_diagonal(same, length)
    there = np.arange(min(len(same), len(sources)))
    begins = np.zeros(len(sources), np.int64)
    begins[there] = same[there, sources[there]]
    return begins.tolist(), same[np.ix_(sources, sources)]


def move(tensors: Sequence[NDArray[Any]], sources: NDArray[np.int64], begins: Sequence[int],
         length: int | None = None) -> None:
    """Place i of every tensor becomes what is at place sources[i], from begins[i] up to `length` on its third axis.

    At most one place is put aside at a time.
    """
    aside: list[NDArray[Any]] = []
    ordered = moves(sources.tolist())
    for step, (target, source) in enumerate(ordered):
        if target < 0:
            begin = begins[next(to for to, place in ordered[step:] if place < 0)]
            aside = [tensor[source, :, begin:length].copy() for tensor in tensors]
            continue
        begin = begins[target]
        held = aside if source < 0 else [tensor[source, :, begin:length] for tensor in tensors]
        for tensor, values in zip(tensors, held, strict=True):
            tensor[target, :, begin:length] = values
