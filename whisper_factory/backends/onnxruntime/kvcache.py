"""Memory of the KV caches, self-attention's and cross-attention's, in the engine's KV mode. NumPy only.

Both modes keep addresses for the largest batch at its longest, and give a row the same place from its first token
to its last: nothing moves as a sequence grows. They differ in when there is memory behind the addresses. In
contiguous mode it is written at load. In paged mode the system gives it on the first write, is told that it is free
when a sequence ends, and a pool counts the pages, so that there are never more than kv_cache.max_pages
(sizes.py has the formulas).
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnxruntime import sizes
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError

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
        if resident:
            np.frombuffer(self._map, np.uint8).fill(0)
        else:
            with suppress(OSError):  # a system without huge pages
                self._map.madvise(mmap.MADV_NOHUGEPAGE)  # else the first token of a row would take 2 MB

    def tensors(self, first: int, rows: int, shape: Shape) -> Tensors:
        """Rows `first` to `first + rows` of every tensor, [rows, *shape]; their content stays as it is."""
        size = shape[0] * shape[1] * shape[2]
        return [np.frombuffer(self._map, self._dtype, rows * size,
                              index * self._step + first * size * self._dtype.itemsize)
                .reshape(rows, *shape) for index in range(self._count)]

    def release(self, first: int, rows: int, shape: Shape) -> None:
        """Give back the memory of rows, as far as it is whole pages of the system's; their content is lost."""
        if self._resident:
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


class KVMemory:
    """All KV memory of one engine, and the count of its pages."""

    def __init__(self, spec: EngineSpec) -> None:
        dimensions, resident = spec.dimensions, spec.kv_cache.mode == "contiguous"
        self.spec = spec
        self.max_pages = sizes.pool_pages(spec)
        self.pages_in_use = 0
        self.most_pages = 0  # that were ever in use at once
        self._open: list[KVBlock] = []
        count, row = 2 * dimensions.n_text_layer, dimensions.n_text_state * sizes.FLOAT
        self.self_kv = Slab(count, spec.max_rows, sizes.capacity(spec) * row, resident, np.float32)
        kind = np.int8 if sizes.cross_in_bytes(spec) else np.float32
        row = dimensions.n_text_state * np.dtype(kind).itemsize
        self.cross_kv = Slab(count, spec.profile.max_batch_size, spec.max_cross_len * row, resident, kind)

    def open(self, windows: int, length: int) -> KVBlock:
        """Memory for a batch of windows of `length` encoder positions, one row each."""
        self.close()
        return self._block(0, windows, 1, length)

    def close(self) -> None:
        """Close what is open."""
        for block in list(self._open):
            block.close()

    def _block(self, first: int, windows: int, beams: int, length: int, held: int = 0) -> KVBlock:
        block = KVBlock(self, first, windows, beams, length, held)
        self._open.append(block)
        return block

    def take(self, pages: int) -> None:
        """Take pages from the pool, or give them back (a negative number).

        Raises:
            UserError: there are not so many left.
        """
        if self.pages_in_use + pages > self.max_pages:
            raise UserError(f"the KV cache is full: {self.pages_in_use} of {self.max_pages} pages (kv_cache.max_pages) "
                            f"are in use, {pages} more are needed, and no sequence can end before it has them; "
                            f"decode fewer windows or beams at once, or build with more kv_cache.max_pages "
                            f"({sizes.most_pages(self.spec)} are enough for everything)")
        self.pages_in_use += pages
        self.most_pages = max(self.most_pages, self.pages_in_use)

    def closed(self, block: KVBlock) -> None:
        """A block was closed. With the last one goes what lay on the borders of rows."""
        self._open.remove(block)
        if not self._open:
            self.self_kv.release_all()
            self.cross_kv.release_all()


class KVBlock:
    """The KV memory of windows that are decoded together, their rows all of one length.

    Window w's first row would lie at row w * max_beam_width of the slab if its block began with it: so there is
    always room for as many beams, wherever a batch is split.
    """

    def __init__(self, memory: KVMemory, first: int, windows: int, beams: int, length: int, held: int) -> None:
        dimensions = memory.spec.dimensions
        self._memory, self._first, self._held = memory, first, held  # pages of each row
        self._row: Shape = (dimensions.n_text_head, sizes.capacity(memory.spec), dimensions.head_size)
        self._window: Shape = (dimensions.n_text_head, length, dimensions.head_size)
        self.cross = self._cross_tensors(windows)
        self.beside: Tensors = []  # of cross-attention's bytes, float32: each tensor's scales, then each layer's sums
        if sizes.cross_in_bytes(memory.spec):
            heads, layers = dimensions.n_text_head, dimensions.n_text_layer
            shapes = 2 * layers * [(windows, 1, dimensions.n_text_state)] + layers * [(windows, heads, 1, 1, length)]
            self.beside = [np.zeros(shape, np.float32) for shape in shapes]
        self.past = memory.self_kv.tensors(self._first_row, windows * beams, self._row)

    def _cross_tensors(self, windows: int) -> Tensors:
        """Cross-attention's of so many windows. Keys in bytes are [windows, heads, head size, length]."""
        tensors = self._memory.cross_kv.tensors(self._first, windows, self._window)
        if sizes.cross_in_bytes(self._memory.spec):
            heads, length, size = self._window
            tensors[::2] = [keys.reshape(windows, heads, size, length) for keys in tensors[::2]]
        return tensors

    @property
    def _first_row(self) -> int:
        return self._first * self._memory.spec.profile.max_beam_width

    @property
    def windows(self) -> int:
        """Windows in this block; 0 once closed."""
        return len(self.cross[0]) if self.cross else 0

    @property
    def rows(self) -> int:
        """Sequences in this block; 0 once closed."""
        return len(self.past[0]) if self.past else 0

    def room(self, tokens: int, beams: int) -> int:
        """How many windows can have `tokens` tokens in each of `beams` rows with the pages that are left."""
        needed = beams * sizes.pages(self._memory.spec, tokens) - self.rows // self.windows * self._held
        left = self._memory.max_pages - self._memory.pages_in_use
        return self.windows if needed <= 0 else min(self.windows, left // needed)

    def reserve(self, tokens: int) -> None:
        """Take the pages for rows of `tokens` tokens; fewer than before gives pages back.

        Raises:
            UserError: there are not so many left.
        """
        pages = sizes.pages(self._memory.spec, tokens)
        self._memory.take(self.rows * (pages - self._held))
        self._held = pages

    def select_rows(self, rows: NDArray[np.int64], length: int) -> None:
        """Row i becomes old row rows[i], of which `length` tokens are in use.

        Raises:
            UserError: there are not so many pages left.
        """
        before, after = self.rows, len(rows)
        self._memory.take((after - before) * self._held)
        source, self.past = self.past, self._memory.self_kv.tensors(self._first_row, after, self._row)
        for new, old in zip(self.past, source, strict=True):
            _move_rows(new, old, rows, length)
        self._memory.self_kv.release(self._first_row + after, max(0, before - after), self._row)

    def select_windows(self, windows: NDArray[np.int64]) -> None:
        """Window i becomes old window windows[i]."""
        before, after = self.windows, len(windows)
        if before == after and np.array_equal(windows, np.arange(before)):
            return
        source, self.cross = self.cross, self._cross_tensors(after)
        for new, old in zip(self.cross, source, strict=True):
            _move_rows(new, old, windows, old.shape[2])
        for tensor in self.beside:
            tensor[:after] = tensor[windows]  # in place: they are bound as they lie
        self.beside = [tensor[:after] for tensor in self.beside]
        self._memory.cross_kv.release(self._first + after, before - after, self._window)

    def split(self, windows: int, length: int) -> KVBlock:
        """Leave all but the first `windows` windows to a block of their own; `length` tokens of rows are in use."""
        beams, kept = self.rows // self.windows, windows * (self.rows // self.windows)
        other = self._memory._block(self._first + windows, self.windows - windows, beams, self._window[1], self._held)
        if other._first_row != self._first_row + kept:  # further up: the last row first
            for row in reversed(range(other.rows)):
                for new, old in zip(other.past, self.past, strict=True):
                    new[row, :, :length] = old[kept + row, :, :length]
                if (left := self._first_row + kept + row) < other._first_row:  # nothing else has been put there
                    self._memory.self_kv.release(left, 1, self._row)
        other.beside = [tensor[windows:] for tensor in self.beside]
        self.cross = [tensor[:windows] for tensor in self.cross]
        self.beside = [tensor[:windows] for tensor in self.beside]
        self.past = [tensor[:kept] for tensor in self.past]
        return other

    def close(self) -> None:
        """Give everything back; a second time does nothing."""
        if self.past:
            self._memory.take(-self.rows * self._held)
            self._memory.self_kv.release(self._first_row, self.rows, self._row)
            self._memory.cross_kv.release(self._first, self.windows, self._window)
            self.cross, self.beside, self.past = [], [], []
            self._memory.closed(self)


def _move_rows(target: NDArray[Any], source: NDArray[Any], rows: NDArray[np.int64], length: int) -> None:
    """target[i] = source[rows[i]], the first `length` tokens; the two begin at one address."""
    moved = np.flatnonzero(rows != np.arange(len(rows)))
    if np.all(rows[moved] > moved) and np.all(np.diff(rows[moved]) > 0):
        for to in moved:  # only dropping: a row moves to where one was that is done with
            target[to, :, :length] = source[rows[to], :, :length]
    elif len(moved):
        target[moved, :, :length] = source[rows[moved], :, :length]  # the right side is a copy
