"""Where an engine's buffers lie: a GPU's memory (cudart.Cuda), or this process's own, for running the graphs on the
CPU."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Tensor(NamedTuple):
    """A C-ordered tensor somewhere in a device's memory."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Slot(Protocol):
    """A place on the host that something small is fetched to while the device goes on."""

    array: NDArray[np.uint8]

    def fetch(self, address: int) -> None:
        """Copy what lies there when the work asked for until now is done."""

    def wait(self) -> None:
        """Until it is here."""


class Device(Protocol):
    """Memory, and work that is done in the order in which it is asked for."""

    def allocate(self, size: int) -> int:
        """The address of `size` bytes, zeros; kept as long as the device is."""

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a C-ordered array there."""

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Fill a C-ordered array from there."""

    def copy(self, target: int, source: int, extent: tuple[int, int, int], target_pitch: tuple[int, int],
             source_pitch: tuple[int, int]) -> None:
        """Copy a box of bytes that does not overlap its place of origin.

        Args:
            extent: bytes of a row, rows, layers.
            target_pitch: bytes from row to row, and rows from layer to layer.
        """


    def slot(self, size: int) -> Slot:
        """A place for so many bytes."""


class HostSlot:
    """See `Slot`: here everything is done at once."""

    def __init__(self, size: int) -> None:
        self.array = np.zeros(size, np.uint8)

    def fetch(self, address: int) -> None:
        """See `Slot`."""
        ctypes.memmove(self.array.ctypes.data, address, self.array.nbytes)

    def wait(self) -> None:
        """See `Slot`."""


class Host:
    """This process's memory."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []

    def allocate(self, size: int) -> int:
        """See `Device`."""
        block = np.zeros(max(1, size), np.uint8)
        self._blocks.append(block)
        return int(block.ctypes.data)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """See `Device`."""
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """See `Device`."""
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def slot(self, size: int) -> Slot:
        """See `Device`."""
        return HostSlot(size)

    def copy(self, target: int, source: int, extent: tuple[int, int, int], target_pitch: tuple[int, int],
             source_pitch: tuple[int, int]) -> None:
        """See `Device`."""
        _box(target, extent, target_pitch)[:] = _box(source, extent, source_pitch)


def _box(address: int, extent: tuple[int, int, int], pitch: tuple[int, int]) -> NDArray[np.uint8]:
    """A view of bytes, [layers, rows, width]."""
    width, height, depth = extent
    row, layer = pitch[0], pitch[0] * pitch[1]
    size = (depth - 1) * layer + (height - 1) * row + width
    flat = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))
    return np.lib.stride_tricks.as_strided(flat, (depth, height, width), (layer, row, 1))
