"""Memory of the KV caches, self-attention's and cross-attention's, in the engine's KV mode. NumPy only."""

from __future__ import annotations

from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from whisper_factory.engine_spec import EngineSpec

Tensors: TypeAlias = list[NDArray[np.float32]]  # keys and values of each layer: k 0, v 0, k 1, v 1, ...


class Slab:
    """Memory for `count` equal tensors, given out in any shape.

    Preallocated (contiguous mode): all of it is taken once, and a smaller shape is a view of its start. As the
    first axis is the outermost, fewer rows lie where they lay among more.
    Else (paged mode): what is asked for is allocated then.
    """

    def __init__(self, count: int, largest: tuple[int, ...], preallocated: bool) -> None:
        self._count = count
        self._whole: Tensors | None = None
        if preallocated:
            # Zeros that are written: memory of np.zeros would be taken page by page while decoding.
            self._whole = [np.full(prod(largest), 0, np.float32) for _ in range(count)]

    def take(self, shape: tuple[int, ...]) -> Tensors:
        """The tensors in a shape; in a preallocated slab they overlap those taken before."""
        if self._whole is None:
            return [np.empty(shape, np.float32) for _ in range(self._count)]
        return [whole[:prod(shape)].reshape(shape) for whole in self._whole]


class KVMemory:
    """All KV memory of one engine."""

    def __init__(self, spec: EngineSpec) -> None:
        sizes = spec.dimensions
        self.heads, self.head_size, self.max_tokens = sizes.n_text_head, sizes.head_size, spec.max_tokens
        self._page = spec.kv_cache.tokens_per_page
        self._paged = spec.kv_cache.mode == "paged"
        count = 2 * sizes.n_text_layer
        per_row = (self.heads, spec.max_tokens, self.head_size)
        self._self = Slab(count, (spec.max_rows, *per_row), not self._paged)
        per_window = (self.heads, spec.max_cross_len, self.head_size)
        self._cross = Slab(count, (spec.profile.max_batch_size, *per_window), not self._paged)

    def capacity(self, tokens: int) -> int:
        """Tokens that the self-attention buffers are made for when they must hold `tokens`."""
        if not self._paged:
            return self.max_tokens
        return min(self.max_tokens, -(-tokens // self._page) * self._page)

    def self_kv(self, rows: int, tokens: int) -> Tensors:
        """Buffers [rows, heads, capacity, head size] for self-attention."""
        return self._self.take((rows, self.heads, self.capacity(tokens), self.head_size))

    def cross_kv(self, windows: int, length: int) -> Tensors:
        """Buffers [windows, heads, length, head size] for cross-attention."""
        return self._cross.take((windows, self.heads, length, self.head_size))

    def select_self(self, old: Tensors, rows: NDArray[np.int64], length: int) -> Tensors:
        """Buffers in which row i holds the first `length` tokens of old row rows[i]; only those are copied."""
        new = self.self_kv(len(rows), length + 1) if len(rows) != len(old[0]) else old
        for target, source in zip(new, old, strict=True):
            target[:, :, :length] = source[rows, :, :length]  # the right side is a copy: they may overlap
        return new

    def grow(self, old: Tensors, length: int, tokens: int) -> Tensors:
        """The same past in buffers that hold `tokens`; `old` itself if it does."""
        if tokens <= old[0].shape[2]:
            return old
        new = self.self_kv(len(old[0]), tokens)
        for target, source in zip(new, old, strict=True):
            target[:, :, :length] = source[:, :, :length]
        return new

    def select_cross(self, old: Tensors, windows: NDArray[np.int64]) -> Tensors:
        """Buffers in which window i is old window windows[i]."""
        new = self.cross_kv(len(windows), old[0].shape[2])
        for target, source in zip(new, old, strict=True):
            target[:] = source[windows]
        return new
