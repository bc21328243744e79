"""How much memory this process holds, by the operating system's own count (Linux)."""

from __future__ import annotations

import contextlib
import importlib
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from whisper_factory import file_pages


@dataclass(frozen=True)
class Measured:
    """Resident memory of a process that ran an engine, in bytes."""

    baseline: int  # Python, the backend's libraries without their code, and what was there before the engine
    loaded: int  # with the engine loaded and idle
    load_peak: int  # at the highest until then
    peak: int  # at the highest

    def __str__(self) -> str:
        base, loaded, load_peak, peak = (f"{size / 1e6:.1f} MB" for size in (
            self.baseline, self.loaded - self.baseline, self.load_peak - self.baseline, self.peak - self.baseline))
        return (f"{self.peak / 1e6:.1f} MB at peak, of which {base} are Python and its libraries; the engine takes "
                f"{loaded} when loaded, {load_peak} while loading, {peak} at peak")


class Meter:
    """Reads memory at the moments that matter; make it before the engine is loaded."""

    def __init__(self, libraries: Iterable[str]) -> None:
        """
        Args:
            libraries: modules that belong to the baseline; they are imported.
        """
        import_all(libraries)
        file_pages.let_go(file_pages.code())  # as an engine does when it has been loaded
        self._baseline = self._loaded = now()
        self._load_peak = peak()

    def loaded(self) -> None:
        """The engine has been loaded now."""
        self._loaded, self._load_peak = now(), peak()

    def read(self) -> Measured:
        """All there is to say so far."""
        return Measured(self._baseline, self._loaded, self._load_peak, peak())


def import_all(libraries: Iterable[str]) -> None:
    """Import modules. One that cannot be is passed over, as what loads the engine says better what is missing; what one
    prints goes to standard error."""
    for library in libraries:
        with contextlib.suppress(Exception), contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(library)


def now() -> int:
    """Resident bytes of this process: its own, and the file pages it has mapped and touched."""
    return _status("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak() -> int:
    """The most that was ever resident (VmHWM; unlike ru_maxrss it does not start at the parent's)."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
