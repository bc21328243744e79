"""Code that is let go of: what counts for the process, that it runs all the same, and that nothing written is lost."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from whisper_factory import file_pages

PROGRAM = """
import numpy, onnxruntime
from whisper_factory import file_pages

def resident():
    found, ours = 0, False
    for line in open("/proc/self/smaps", encoding="utf-8"):
        name, *rest = line.split()
        if not name.endswith(":"):
            ours = "onnxruntime_pybind11" in line
        elif ours and name in ("Rss:", "Anonymous:"):  # without what was written to it
            found += 1024 * int(rest[0]) * (1 if name == "Rss:" else -1)
    return found

before = resident()
file_pages.let_go(file_pages.code())
after = resident()
assert onnxruntime.SessionOptions().intra_op_num_threads == 0 and numpy.fft.rfft(numpy.ones(8))[0] == 8
print(before, after, resident())
"""


def test_code_is_let_go_and_runs_again() -> None:
    """In a fresh process, which has run through what it imports."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after, again = map(int, done.stdout.split())
    assert before > 5e6
    assert after < 1e6
    assert after < again < before


def test_what_was_written_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping as the loader leaves one behind that it relocated: read-only, one page of it not the file's."""
    path = tmp_path / "library.so"
    path.write_bytes(bytes(4 * mmap.PAGESIZE))
    monkeypatch.setattr(file_pages, "LIBRARIES", ("library",))
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    start, size = ctypes.addressof(ctypes.c_char.from_buffer(mapped)), len(mapped)
    assert not file_pages.code()  # may be written
    libc.mprotect(start, size, mmap.PROT_READ)
    assert file_pages.code() == [(start, start + size)]
    libc.mprotect(start, size, mmap.PROT_READ | mmap.PROT_WRITE)
    mapped[mmap.PAGESIZE] = 7
    libc.mprotect(start, size, mmap.PROT_READ)
    assert not file_pages.code()
    assert mapped[mmap.PAGESIZE] == 7


def test_where_the_system_does_not_say_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_pages, "OF", tmp_path)
    assert file_pages.code() == []
    (tmp_path / "pagemap").touch()
    (tmp_path / "maps").write_text("no map\n")
    assert file_pages.code() == []
