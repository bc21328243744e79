"""Memory of the KV caches, self-attention's and cross-attention's, in the engine's KV mode. NumPy only."""

from __future__ import annotations

from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from whisper_factory.engine_spec import EngineSpec

Tensors: TypeAlias = list[NDArray[np.float32]]  # keys and values of each layer: k 0, v 0, k 1, v 1, ...
Shape: TypeAlias = tuple[int, int, int, int]  # rows (or windows), heads, tokens, head size


class Slab:
    """Memory for `count` equal tensors, given out in any shape up to the largest.

    Preallocated (contiguous mode): all of it is taken once, and a smaller shape is a view of its start. The first
    axis is the outermost, so a row lies at the same place among few rows as among many.
    Else (paged mode): what is asked for is allocated then, and freed with the last reference to it.
    """

    def __init__(self, count: int, largest: Shape, preallocated: bool) -> None:
        self.count = count
        # Written, as the memory of np.zeros would only be taken page by page while decoding.
        self._whole = [np.full(prod(largest), 0, np.float32) for _ in range(count)] if preallocated else None

    def tensor(self, index: int, shape: Shape) -> NDArray[np.float32]:
        """One tensor in a shape; if preallocated, it overlaps the same tensor in its former shape."""
        if self._whole is None:
            return np.empty(shape, np.float32)
        return self._whole[index][: prod(shape)].reshape(shape)

    def take(self, shape: Shape) -> Tensors:
        """All tensors in a shape, their content undefined."""
        return [self.tensor(index, shape) for index in range(self.count)]

    def reshape(self, tensors: Tensors, shape: Shape, rows: NDArray[np.int64], length: int) -> None:
        """Give the tensors another shape, in place: row i gets the first `length` tokens of old row rows[i].

        One tensor is replaced after the other, so that no more than one is there twice.
        """
        for index, source in enumerate(tensors):
            tensors[index] = self.tensor(index, shape)
            _copy_rows(tensors[index], source, rows, length)


def _copy_rows(target: NDArray[np.float32], source: NDArray[np.float32], rows: NDArray[np.int64], length: int) -> None:
    """target[i] = source[rows[i]], the first `length` tokens; the two may overlap, row upon row."""
    if np.any(np.diff(rows) <= 0):
        target[:, :, :length] = source[rows, :, :length]  # the right side is a copy
        return
    in_place = target.ctypes.data == source.ctypes.data
    for to, row in enumerate(rows):  # only dropping: a row moves to where one was that is done with
        if not (in_place and to == row):
            target[to, :, :length] = source[row, :, :length]


class KVMemory:
    """All KV memory of one engine."""

    def __init__(self, spec: EngineSpec) -> None:
        sizes = spec.dimensions
        self.max_tokens = spec.max_tokens
        self._heads, self._head_size = sizes.n_text_head, sizes.head_size
        self._page = spec.kv_cache.tokens_per_page if spec.kv_cache.mode == "paged" else spec.max_tokens
        whole, count = spec.kv_cache.mode == "contiguous", 2 * sizes.n_text_layer
        self._self = Slab(count, self._shape(spec.max_rows, spec.max_tokens), whole)
        self._cross = Slab(count, self._shape(spec.profile.max_batch_size, spec.max_cross_len), whole)

    def _shape(self, rows: int, tokens: int) -> Shape:
        return rows, self._heads, tokens, self._head_size

    def _capacity(self, tokens: int) -> int:
        return min(self.max_tokens, -(-tokens // self._page) * self._page)

    def cross_kv(self, windows: int, length: int) -> Tensors:
        """Buffers [windows, heads, length, head size] for cross-attention."""
        return self._cross.take(self._shape(windows, length))

    def self_kv(self, rows: int) -> Tensors:
        """Buffers [rows, heads, capacity, head size] for self-attention: whole, or of one page."""
        return self._self.take(self._shape(rows, self._capacity(1)))

    def reserve(self, tensors: Tensors, length: int, tokens: int) -> bool:
        """Make room for `tokens` in self-attention's buffers, which hold `length`. Whether they moved."""
        rows, _, capacity, _ = tensors[0].shape
        if tokens <= capacity:
            return False
        self._self.reshape(tensors, self._shape(rows, self._capacity(tokens)), np.arange(rows), length)
        return True

    def select_rows(self, tensors: Tensors, rows: NDArray[np.int64], length: int) -> bool:
        """Row i becomes old row rows[i], of which `length` tokens are in use. Whether the buffers moved."""
        if len(rows) == len(tensors[0]):
            for tensor in tensors:
                _copy_rows(tensor, tensor, rows, length)
            return False
        self._self.reshape(tensors, self._shape(len(rows), tensors[0].shape[2]), rows, length)
        return True

    def select_windows(self, tensors: Tensors, windows: NDArray[np.int64]) -> bool:
        """Window i becomes old window windows[i]. Whether the buffers moved."""
        if np.array_equal(windows, np.arange(len(tensors[0]))):
            return False
        length = tensors[0].shape[2]
        self._cross.reshape(tensors, self._shape(len(windows), length), windows, length)
        return True
