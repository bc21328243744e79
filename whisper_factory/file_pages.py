"""Letting go of libraries' code that was run and is not needed for now (Linux).

A process counts every page of a library that it ever touched, and the neighbours that the system maps with it: to
import and load runs through 20 MB of ONNX Runtime, a turn through half of that. What is let go stays in the system's
cache, counted for no process, and is the first that it takes when memory runs short. Where it is needed again it is
mapped again, 64 kB at a time, in some 10 us.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

Spans: TypeAlias = list[tuple[int, int]]  # of addresses: the first, and the one after the last

OF = Path("/proc/self")
# How the names of the files begin. None of these is ever unloaded, so where they lie they stay.
LIBRARIES = ("onnxruntime_", "libonnxruntime", "_multiarray_umath", "_pocketfft", "_umath_linalg", "libscipy_openblas",
             "libgfortran", "libpython", "libstdc++", "libc.", "libm.")
MADV_DONTNEED = 4  # as mman.h has it
PRESENT, SWAPPED, OF_FILE = (1 << bit for bit in (63, 62, 61))  # of a page, in pagemap


def code() -> Spans:
    """Where the libraries' code and constants lie; nowhere, where the system does not say."""
    with suppress(OSError, ValueError):
        pages = os.open(OF / "pagemap", os.O_RDONLY)
        try:
            maps = (OF / "maps").read_text(encoding="utf-8", errors="replace")
            return [span for span in _read_only(maps) if _as_in_file(pages, *span)]
        finally:
            os.close(pages)
    return []


def let_go(spans: Spans) -> None:
    """Let go of these pages."""
    with suppress(OSError, AttributeError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        for start, end in spans:
            madvise(start, end - start, MADV_DONTNEED)


def _read_only(maps: str) -> Iterator[tuple[int, int]]:
    """Of `maps`, as in proc(5): where the libraries lie that are mapped so that nothing can be written there."""
    for line in maps.splitlines():
        addresses, permissions, _, _, inode, *path = line.split(None, 5)
        if path and inode != "0" and permissions in ("r-xp", "r--p") and Path(path[0]).name.startswith(LIBRARIES):
            start, end = addresses.split("-")
            yield int(start, 16), int(end, 16)


def _as_in_file(pages: int, start: int, end: int) -> bool:
    """Whether all pages are the file's own. The loader's relocations are not: they were written before the segment was
    closed to writing, and would be lost."""
    count = (end - start) // mmap.PAGESIZE
    found = struct.unpack(f"={count}Q", os.pread(pages, 8 * count, 8 * start // mmap.PAGESIZE))
    return not any(page & SWAPPED or (page & PRESENT and not page & OF_FILE) for page in set(found))
