"""How much memory this process holds, by the operating system's own count (Linux)."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """Resident memory in bytes: before an engine was loaded, with it loaded, and at the highest."""

    baseline: int  # Python and the libraries
    loaded: int
    load_peak: int  # while loading
    peak: int


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
