"""Waiting for other processes: for what they do, however long this machine takes to let them."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import pytest

from whisper_factory import command

SECONDS = 200.0  # after which a test that waits fails: what it waits for does not come


def ended(process: int, within: float = SECONDS) -> bool:
    """Whether a process that need not be a child of this one ends in time. One that nobody reaped has ended."""
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], within)[0])
    finally:
        os.close(watched)


def children() -> set[str]:
    """This thread's. One that an earlier test left behind is reaped whenever the next is started."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(encoding="ascii").split())


def until_seen(monkeypatch: pytest.MonkeyPatch, folder: Path, least: float) -> str:
    """What a program that `command.run` runs executes to go on only when it, or a child, was seen with such memory.

    Args:
        least: resident bytes of one process.
    """
    seen, status = folder / "seen", command._status

    def noting(process: int, name: str) -> int:
        found = status(process, name)
        if found >= least:
            seen.touch()
        return found

    monkeypatch.setattr(command, "_status", noting)
    return (f"import os, time\nfor _ in range({round(SECONDS / 0.02)}):\n if os.path.exists({str(seen)!r}): break\n"
            f" time.sleep(0.02)\n")
