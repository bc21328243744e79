"""Memory of the KV caches, self-attention's and cross-attention's, in the engine's KV mode. NumPy only.

Both modes keep addresses for the largest batch at its longest, and give a row the same place from its first token
to its last: nothing moves as a sequence grows. They differ in when there is memory behind the addresses. In
contiguous mode it is written at load. In paged mode the system gives it on the first write, is told that it is free
when a sequence ends, and a pool counts the pages, so that there are never more than kv_cache.max_pages
(sizes.py has the formulas).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnxruntime import sizes
from whisper_factory.backends.onnxruntime.binding import Caches
from whisper_factory.backends.onnxruntime.branching import branched, move
from whisper_factory.backends.onnxruntime.slab import Shape, Slab, Tensors
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError


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

    def open(self, windows: int, length: int, beams: int = 1) -> KVBlock:
        """Memory for a batch of windows of `length` encoder positions, `beams` rows each."""
        self.close()
        return self._block(0, windows, beams, length)

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
    """The KV memory of windows that are decoded together. What is said of a length is of all rows, or of the longest.

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
        self._same = np.zeros((self.rows, self.rows), np.int64)  # see `branched`

    def _cross_tensors(self, windows: int) -> Tensors:
        """Cross-attention's of so many windows. Keys in bytes are [windows, heads, head size, length]."""
        tensors = self._memory.cross_kv.tensors(self._first, windows, self._window)
        if sizes.cross_in_bytes(self._memory.spec):
            heads, length, size = self._window
            tensors[::2] = [keys.reshape(windows, heads, size, length) for keys in tensors[::2]]
        return tensors

    @property
    def caches(self) -> Caches:
        """As they lie now."""
        return Caches(self.cross, self.beside, self.past)

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
        """Take the pages for rows of `tokens` tokens; fewer than before gives pages back, and the rest is written anew.

        Raises:
            UserError: there are not so many left.
        """
        pages = sizes.pages(self._memory.spec, tokens)
        self._memory.take(self.rows * (pages - self._held))
        self._held = pages
        np.minimum(self._same, tokens, out=self._same)

    def select_rows(self, rows: NDArray[np.int64], length: int) -> None:
        """Row i becomes old row rows[i], of which `length` tokens are in use.

        Raises:
            UserError: there are not so many pages left.
        """
        before, after = self.rows, len(rows)
        self._memory.take((after - before) * self._held)
        begins, self._same = branched(self._same, rows, length)
        places = self.past if after <= before else self._memory.self_kv.tensors(self._first_row, after, self._row)
        move(places, rows, begins, length)
        self.past = [tensor[:after] for tensor in places]
        self._memory.self_kv.release(self._first_row + after, max(0, before - after), self._row)

    def select_windows(self, windows: NDArray[np.int64]) -> None:
        """Window i becomes old window windows[i]."""
        before, after = self.windows, len(windows)
        if after == before and np.array_equal(windows, np.arange(before)):
            return
        move([*self.cross, *self.beside], windows, after * [0])
        self.cross, self.beside = ([tensor[:after] for tensor in tensors] for tensors in (self.cross, self.beside))
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
        other._same, self._same = self._same[kept:, kept:].copy(), self._same[:kept, :kept].copy()
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
