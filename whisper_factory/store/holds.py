"""Who is at work in the store: advisory locks, and a record of each run for whoever is kept waiting.

Nothing breaks where a file system has no locks: they save double work, and keep `gc` from under a run's feet.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

LOCKS, RUNS = "locks", "runs"
WHOLE = "store.lock"  # shared by everyone at work, exclusive for gc


class BusyError(Exception):
    """Somebody else holds the lock."""


@cache
def host() -> str:
    """This machine, in a form that fits a file's name: its host name, and a digest of what tells it from a namesake."""
    identity = _read("/etc/machine-id") or _read("/proc/sys/kernel/random/boot_id")
    name = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "host"
    return f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def mine() -> str:
    """A name that no other process has, on any host."""
    return f"{host()}.{os.getpid()}.{os.urandom(4).hex()}"


@contextmanager
def locked(path: Path, shared: bool = False, wait: bool = True,
           on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold a lock file, made if need be; gives False where it cannot be held (read-only, or no locks here).

    Args:
        on_wait: called if another process has it now.

    Raises:
        BusyError: another process has it, and `wait` is false.
    """
    descriptor = _open(path)
    try:
        yield descriptor is not None and _lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait, on_wait)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(path: Path) -> int | None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # over NFS an exclusive lock wants a file open for writing
        with suppress(OSError):
            return os.open(path, flags, 0o666)
    return None


def _lock(descriptor: int, kind: int, wait: bool, on_wait: Callable[[], None]) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise BusyError from None
        on_wait()
        fcntl.flock(descriptor, kind)
    except OSError:  # ENOLCK, ENOTSUP
        return False
    return True


@contextmanager
def at_work(root: Path, about: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Be somebody at work in the store: gc waits with removing anything."""
    with locked(root / LOCKS / WHOLE, shared=True, on_wait=on_wait):
        record = root / RUNS / mine()
        with suppress(OSError):
            record.parent.mkdir(exist_ok=True)
            record.write_text(about, encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                record.unlink()


def runs(root: Path) -> list[tuple[Path, str, int]]:
    """What runs have noted: the record, its host, and its process. Some may have been killed since."""
    found = []
    for path in sorted((root / RUNS).glob("*.*.*")):
        where, process, _ = path.name.rsplit(".", 2)
        if process.isdigit():
            found.append((path, where, int(process)))
    return found


def blockers(root: Path) -> str:
    """Who is at work, in words; those of this host that no longer run are left out."""
    said = [f"{_read_about(path)} (process {process} on {where})" for path, where, process in runs(root)
            if where != host() or Path(f"/proc/{process}").exists()]
    return ", ".join(said) or "a process that left no record"


def _read_about(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "a step"
    except (OSError, ValueError):
        return "a run"
