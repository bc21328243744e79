"""The KV caches, self-attention's and cross-attention's: where each row and window lies, and how they are moved.

All stays at its address, so that it is bound once; the memory behind it is taken when an engine loads (paged.py has the
other mode). A tensor of every layer and part (k 0, v 0, k 1, ...) lies at the same distance from the next, so one copy
moves a row in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.moves import moves
from whisper_factory.engine_spec import EngineSpec


def names(kind: str, layers: int) -> list[str]:
    """Names of a cache's tensors in the graphs, in their order."""
    return [f"{kind}_{part}_{layer}" for layer in range(layers) for part in "kv"]


class KVCaches:
    """Memory of both caches of an engine."""

    def __init__(self, spec: EngineSpec, device: Device) -> None:
        sizes, profile = spec.dimensions, spec.profile
        self._device, self._heads, self._size = device, sizes.n_text_head, sizes.head_size
        self._dtype = np.dtype(spec.precision.dtype)
        self._tensors, self.layers = 2 * sizes.n_text_layer, sizes.n_text_layer
        self._rows, self._windows, self._longest = spec.max_rows, profile.max_batch_size, spec.max_cross_len
        self.capacity = spec.max_tokens
        self._token = self._size * self._dtype.itemsize  # of one head
        self._past_step, self._cross_step = self._rows * self._row, self._windows * self._window  # tensor to tensor
        self._past, self._cross, self._aside = self._places()

    def _places(self) -> tuple[int, int, int]:
        """Where self-attention's, cross-attention's, and what is put aside while rows change places begin."""
        sizes = self._past_step, self._cross_step, max(self._row, self._window)
        past, cross, aside = (self._device.allocate(self._tensors * size) for size in sizes)
        return past, cross, aside

    def hold(self, rows: int, windows: int, length: int) -> None:
        """Have memory behind so many rows, and windows of `length` encoder positions, and behind no more than that if
        what is there comes and goes: here it stays."""

    def room(self, windows: int, beams: int) -> int:
        """How many of so many windows can have `beams` rows each."""
        return windows

    def warming_up(self) -> AbstractContextManager[None]:
        """While this lasts, what is put into the caches may be lost; they must be let go at its end."""
        return nullcontext()

    def keeping(self) -> AbstractContextManager[None]:
        """While this lasts, memory that comes and goes only comes: it is at hand for the next batch."""
        return nullcontext()

    def _need_aside(self, each: int) -> None:
        """Something is going to be put aside: `each` bytes of every tensor."""

    def _copy(self, target: int, source: int, extent: tuple[int, int], target_pitch: tuple[int, int],
              source_pitch: tuple[int, int]) -> None:
        """Copy a box in every tensor. See `Device.copy`, whose layers are the tensors here."""
        self._device.copy(target, source, (*extent, self._tensors), target_pitch, source_pitch)

    @property
    def _row(self) -> int:
        """Bytes from one row to the next."""
        return self._heads * self.capacity * self._token

    @property
    def _window(self) -> int:
        """Bytes of a window at its longest."""
        return self._heads * self._longest * self._token

    def past(self, rows: int) -> dict[str, Tensor]:
        """Keys and values of the first rows, at their capacity."""
        shape = (rows, self._heads, self.capacity, self._size)
        return self._named("past", self._past, self._past_step, shape)

    def cross(self, windows: int, length: int) -> dict[str, Tensor]:
        """Those of windows of `length` encoder positions, one window right behind the other."""
        shape = (windows, self._heads, length, self._size)
        return self._named("cross", self._cross, self._cross_step, shape)

    def _named(self, kind: str, start: int, step: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {name: Tensor(start + index * step, shape, self._dtype)
                for index, name in enumerate(names(kind, self.layers))}

    def select_rows(self, sources: Sequence[int], length: int) -> None:
        """Row i becomes former row sources[i], of which `length` tokens are in use."""
        pitch = self.capacity * self._token
        heads = self._past_step // pitch  # from tensor to tensor

        def copy(target: int, source: int) -> None:
            places = [(self._aside, self._heads) if row < 0 else (self._past + row * self._row, heads)
                      for row in (target, source)]
            self._copy(places[0][0], places[1][0], (length * self._token, self._heads),
                       (pitch, places[0][1]), (pitch, places[1][1]))

        if length:
            self._move(sources, self._row, copy)

    def select_windows(self, sources: Sequence[int], length: int) -> None:
        """Window i becomes former window sources[i], of `length` encoder positions."""
        size = self._heads * length * self._token

        def copy(target: int, source: int) -> None:
            places = [(self._aside, self._window) if window < 0 else (self._cross + window * size, self._cross_step)
                      for window in (target, source)]
            self._copy(places[0][0], places[1][0], (size, 1), (places[0][1], 1), (places[1][1], 1))

        self._move(sources, self._window, copy)

    def _move(self, sources: Sequence[int], each: int, copy: Callable[[int, int], None]) -> None:
        """
        Args:
            each: bytes of every tensor that are put aside, where something is.
        """
        ordered = moves(sources)
        if any(target < 0 for target, _ in ordered):
            self._need_aside(each)
        for target, source in ordered:
            copy(target, source)
