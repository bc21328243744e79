"""What stands for a GPU's virtual memory: this process's own. A touch of what has no memory behind it kills it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence

from whisper_factory.backends.cuda.cudart import FULL
from whisper_factory.backends.cuda.device import Host
from whisper_factory.errors import UserError

NOTHING, READ_AND_WRITE = 0, 3  # PROT_NONE, PROT_READ | PROT_WRITE
SHARED, PRIVATE, FIXED, ANONYMOUS, NO_RESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


class HostVirtual:
    """See `vmm.Virtual`. Granules are pages of a file in memory, so one can be behind several addresses."""

    def __init__(self, granule: int = mmap.PAGESIZE, most: int = 1 << 30) -> None:
        """
        Args:
            granule: a multiple of this machine's pages.
            most: granules that there are.
        """
        self.granule, self.most = granule, most
        self.there: set[int] = set()
        self.reserved: list[tuple[int, int]] = []
        self.mapped: dict[int, int] = {}  # addresses of granules' places -> what is there
        self.calls: list[str] = []
        self._file, self._numbers = os.memfd_create("granules"), 0

    def _mmap(self, address: int | None, size: int, protection: int, flags: int, file: int, offset: int) -> int:
        found = _libc.mmap(address, size, protection, flags, file, offset)
        assert found not in (None, FAILED), os.strerror(ctypes.get_errno())
        return int(found)

    def reserve(self, size: int) -> int:
        """See `Virtual`."""
        assert size % self.granule == 0
        self.reserved.append((self._mmap(None, size, NOTHING, PRIVATE | ANONYMOUS | NO_RESERVE, -1, 0), size))
        return self.reserved[-1][0]

    def create(self) -> int:
        """See `Virtual`."""
        if len(self.there) >= self.most:
            raise UserError(FULL)
        self._numbers += 1
        os.ftruncate(self._file, self._numbers * self.granule)
        self.there.add(self._numbers)
        return self._numbers

    def destroy(self, granule: int) -> None:
        """See `Virtual`."""
        assert granule not in self.mapped.values(), "it is still mapped"
        self.there.remove(granule)

    def map(self, address: int, granules: Sequence[int]) -> None:
        """See `Virtual`."""
        self.calls.append("map")
        for place, granule in enumerate(granules):
            at = address + place * self.granule
            assert at not in self.mapped, "there is something already"
            assert granule in self.there
            self._mmap(at, self.granule, READ_AND_WRITE, SHARED | FIXED, self._file, (granule - 1) * self.granule)
            self.mapped[at] = granule
            ctypes.memset(at, 0, self.granule)

    def unmap(self, address: int, count: int) -> None:
        """See `Virtual`. Right after a wait alone, as this stand-in knows of no work."""
        assert self.calls[-1] in ("synchronize", "unmap"), "what uses it may be under way"
        self.calls.append("unmap")
        self._mmap(address, count * self.granule, NOTHING, PRIVATE | ANONYMOUS | FIXED | NO_RESERVE, -1, 0)
        for place in range(count):
            del self.mapped[address + place * self.granule]

    def synchronize(self) -> None:
        """See `Virtual`."""
        self.calls.append("synchronize")

    def whole(self, address: int, size: int) -> bool:
        """Whether all of these addresses have memory, as far as they are of this."""
        first, last = address // self.granule, (address + size - 1) // self.granule
        places = {number * self.granule for number in range(first, last + 1)}
        own = any(start <= address < start + length for start, length in self.reserved)
        return not own or places <= self.mapped.keys()


class PickyHost(Host):
    """This process's memory, in which no box is copied over addresses of which some have no memory: so has CUDA it."""

    def __init__(self, virtual: HostVirtual) -> None:
        super().__init__()
        self._virtual = virtual

    def copy(self, target: int, source: int, extent: tuple[int, int, int], target_pitch: tuple[int, int],
             source_pitch: tuple[int, int]) -> None:
        """See `Device`."""
        for address, pitch in ((target, target_pitch), (source, source_pitch)):
            size = ((extent[2] - 1) * pitch[1] + extent[1] - 1) * pitch[0] + extent[0]
            assert self._virtual.whole(address, size), "a copy over a hole"
        super().copy(target, source, extent, target_pitch, source_pitch)
