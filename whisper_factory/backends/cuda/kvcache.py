"""The KV caches, self-attention's and cross-attention's: where each row and window lies, and how they are moved.

All is taken when an engine loads, and stays at its address, so that it is bound once. A tensor of every layer and part
(k 0, v 0, k 1, ...) lies at the same distance from the next, so one copy moves a row in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.engine_spec import EngineSpec


def names(kind: str, layers: int) -> list[str]:
    """Names of a cache's tensors in the graphs, in their order."""
    return [f"{kind}_{part}_{layer}" for layer in range(layers) for part in "kv"]


def moves(sources: Sequence[int]) -> list[tuple[int, int]]:
    """Copies, in order, after which place i holds what was at sources[i]. -1 is a place to keep something meanwhile."""
    wanted = {place: source for place, source in enumerate(sources) if place != source}
    ordered = []
    while wanted:
        read = set(wanted.values())
        free = next((place for place in wanted if place not in read), None)
        if free is None:  # only cycles are left: what one place holds is put aside
            aside = next(iter(wanted))
            ordered.append((-1, aside))
            wanted = {place: -1 if source == aside else source for place, source in wanted.items()}
        else:
            ordered.append((free, wanted.pop(free)))
    return ordered


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
        self._past = device.allocate(self._tensors * self._rows * self._row)
        self._cross = device.allocate(self._tensors * self._windows * self._window)
        self._aside = device.allocate(self._tensors * max(self._row, self._window))

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
        return self._named("past", self._past, self._rows * self._row, shape)

    def cross(self, windows: int, length: int) -> dict[str, Tensor]:
        """Those of windows of `length` encoder positions, one window right behind the other."""
        shape = (windows, self._heads, length, self._size)
        return self._named("cross", self._cross, self._windows * self._window, shape)

    def _named(self, kind: str, start: int, step: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {name: Tensor(start + index * step, shape, self._dtype)
                for index, name in enumerate(names(kind, self.layers))}

    def select_rows(self, sources: Sequence[int], length: int) -> None:
        """Row i becomes former row sources[i], of which `length` tokens are in use."""
        pitch, heads = self.capacity * self._token, self._rows * self._heads

        def copy(target: int, source: int) -> None:
            places = [(self._aside, self._heads) if row < 0 else (self._past + row * self._row, heads)
                      for row in (target, source)]
            self._device.copy(places[0][0], places[1][0], (length * self._token, self._heads, self._tensors),
                              (pitch, places[0][1]), (pitch, places[1][1]))

        if length:
            _move(sources, copy)

    def select_windows(self, sources: Sequence[int], length: int) -> None:
        """Window i becomes former window sources[i], of `length` encoder positions."""
        size = self._heads * length * self._token

        def copy(target: int, source: int) -> None:
            places = [(self._aside, 1) if window < 0 else (self._cross + window * size, self._windows)
                      for window in (target, source)]
            self._device.copy(places[0][0], places[1][0], (size, 1, self._tensors),
                              (self._window, places[0][1]), (self._window, places[1][1]))

        _move(sources, copy)


def _move(sources: Sequence[int], copy: Callable[[int, int], None]) -> None:
    for target, source in moves(sources):
        copy(target, source)
