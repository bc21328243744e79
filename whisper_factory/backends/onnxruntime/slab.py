"""Addresses for rows of keys and values, and the memory behind them. NumPy only."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Tensors: TypeAlias = list[NDArray[Any]]  # keys and values of each layer: k 0, v 0, k 1, v 1, ...
Shape: TypeAlias = tuple[int, int, int]  # of one row (or window): heads, tokens, head size; keys in bytes turned


class Slab:
    """Addresses for `count` tensors of up to `rows` rows, each row of up to `row_bytes`.

    Resident: there is memory behind all of them from the start. Else: from the first write until `release`.
    """

    def __init__(self, count: int, rows: int, row_bytes: int, resident: bool, dtype: type[np.generic]) -> None:
        self._resident, self._dtype = resident, np.dtype(dtype)
        self._step = -(-rows * row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE  # from tensor to tensor
        self._count = count
        self.size = count * self._step  # bytes
        self._map = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a system without huge pages. If not resident, a row's first token would take 2 MB
            self._map.madvise(mmap.MADV_HUGEPAGE if resident else mmap.MADV_NOHUGEPAGE)
        if resident:
            np.frombuffer(self._map, np.uint8).fill(0)

    def tensors(self, first: int, rows: int, shape: Shape) -> Tensors:
        """Rows `first` to `first + rows` of every tensor, [rows, *shape]; their content stays as it is."""
        size = shape[0] * shape[1] * shape[2]
        return [np.frombuffer(self._map, self._dtype, rows * size,
                              index * self._step + first * size * self._dtype.itemsize)
                .reshape(rows, *shape) for index in range(self._count)]

    def release(self, first: int, rows: int, shape: Shape) -> None:
        """Give back the memory of rows, as far as it is whole pages of the system's; their content is lost."""
        if self._resident or not rows:
            return
        row = shape[0] * shape[1] * shape[2] * self._dtype.itemsize
        for index in range(self._count):
            start = index * self._step + first * row
            end = (start + rows * row) // mmap.PAGESIZE * mmap.PAGESIZE
            start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            if start < end:
                self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def release_all(self) -> None:
        """Give back the memory of every row."""
        if not self._resident:
            self._map.madvise(mmap.MADV_DONTNEED)
