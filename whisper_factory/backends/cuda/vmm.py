"""CUDA's virtual memory, through ctypes: addresses that are kept, and memory that comes and goes behind them.

Of the driver's library, as CUDA's documentation of virtual memory management has it (libcuda, 10.2 and later). What
reads or writes addresses goes on working when other memory is behind them, CUDA graphs included.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Protocol

from whisper_factory.backends.cuda.cudart import Cuda, failure
from whisper_factory.errors import EnvironmentFault, UserError

NAME = "libcuda.so.1"
SUPPORTED = 102  # attribute of a device: it has virtual memory management
PINNED, ON_DEVICE, READ_AND_WRITE, LEAST = 1, 1, 3, 0


class Virtual(Protocol):
    """A device's addresses, and granules of its memory to put behind them."""

    granule: int  # bytes

    def reserve(self, size: int) -> int:
        """The first of `size` bytes of addresses, whole granules; nothing is behind them. Kept for good."""

    def create(self) -> int:
        """A granule of memory.

        Raises:
            UserError: the device's memory is full.
        """

    def destroy(self, granule: int) -> None:
        """Give a granule back, once nothing is mapped to it."""

    def map(self, address: int, granules: Sequence[int]) -> None:
        """Put granules behind addresses, one after the other, and zeros into them, before what is asked for next."""

    def unmap(self, address: int, count: int) -> None:
        """Take away what so many granules' addresses have behind them; no work that uses it may be under way."""

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""


class _Location(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("id", ctypes.c_int))


class _Properties(ctypes.Structure):
    """CUmemAllocationProp."""

    _fields_ = (("type", ctypes.c_int), ("handle_types", ctypes.c_int), ("location", _Location),
                ("windows", ctypes.c_void_p), ("flags", ctypes.c_ubyte * 8))


class _Access(ctypes.Structure):
    """CUmemAccessDesc."""

    _fields_ = (("location", _Location), ("flags", ctypes.c_int))


@cache
def library() -> ctypes.CDLL | None:
    """libcuda, which comes with NVIDIA's driver; None if there is none."""
    with suppress(OSError):
        return ctypes.CDLL(NAME)
    return None


class CudaVirtual:
    """See `Virtual`: of the first GPU, in the order of its one stream."""

    def __init__(self, cuda: Cuda) -> None:
        """
        Raises:
            EnvironmentFault: no driver, or a GPU or driver without virtual memory management.
        """
        loaded = library()
        if loaded is None:
            raise EnvironmentFault(f"kv_cache=paged needs {NAME}, which comes with NVIDIA's driver; install it, or "
                                   f"build with kv_cache=contiguous")
        self._library, self._cuda, supported = loaded, cuda, ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGetAttribute", ctypes.byref(supported), SUPPORTED, 0)
        if not supported.value:
            raise EnvironmentFault("kv_cache=paged needs a GPU and a driver that have virtual memory management, and "
                                   "these have not; build with kv_cache=contiguous")
        self._properties = _Properties(type=PINNED, location=_Location(ON_DEVICE, 0))
        self._access = _Access(_Location(ON_DEVICE, 0), READ_AND_WRITE)
        size = ctypes.c_size_t()
        self._call("cuMemGetAllocationGranularity", ctypes.byref(size), ctypes.byref(self._properties), LEAST)
        self.granule = size.value

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library.

        Raises:
            UserError: the GPU's memory is full.
            EnvironmentFault: it failed otherwise.
        """
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise failure(name, code, text.value)

    def reserve(self, size: int) -> int:
        """See `Virtual`."""
        address, nothing = ctypes.c_uint64(), ctypes.c_uint64(0)
        self._call("cuMemAddressReserve", ctypes.byref(address), ctypes.c_size_t(size),
                   ctypes.c_size_t(self.granule), nothing, nothing)
        return address.value

    def create(self) -> int:
        """See `Virtual`."""
        handle = ctypes.c_uint64()
        self._call("cuMemCreate", ctypes.byref(handle), ctypes.c_size_t(self.granule), ctypes.byref(self._properties),
                   ctypes.c_uint64(0))
        return handle.value

    def destroy(self, granule: int) -> None:
        """See `Virtual`."""
        self._call("cuMemRelease", ctypes.c_uint64(granule))

    def map(self, address: int, granules: Sequence[int]) -> None:
        """See `Virtual`."""
        size, nothing, done = ctypes.c_size_t(self.granule), ctypes.c_uint64(0), 0
        whole = ctypes.c_size_t(len(granules) * self.granule)
        try:
            for granule in granules:
                self._call("cuMemMap", ctypes.c_uint64(address + done * self.granule), size, ctypes.c_size_t(0),
                           ctypes.c_uint64(granule), nothing)
                done += 1
            self._call("cuMemSetAccess", ctypes.c_uint64(address), whole, ctypes.byref(self._access),
                       ctypes.c_size_t(1))
        except (UserError, EnvironmentFault):  # what it needs for its own tables can be missing too
            if done:
                self.unmap(address, done)
            raise
        self._cuda.call("cudaMemsetAsync", ctypes.c_void_p(address), 0, whole, ctypes.c_void_p(self._cuda.stream))

    def unmap(self, address: int, count: int) -> None:
        """See `Virtual`."""
        self._call("cuMemUnmap", ctypes.c_uint64(address), ctypes.c_size_t(count * self.granule))

    def synchronize(self) -> None:
        """See `Virtual`."""
        self._cuda.synchronize()
