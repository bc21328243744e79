"""The store: where finished steps live, content-addressed, shared by all compositions and processes.

    <store>/<step>/<key>/      a finished step's files and its step.json
    <store>/tmp/<key>/         a step at work; whoever finds one under its lock may delete it
    <store>/locks/<key>.lock   held while a step is at work
    <store>/downloads/         files by SHA-256 (linked into fetch steps), and parts of files to go on with

A step is written to tmp/, flushed to disk, then renamed: a directory under <step>/ is always whole. Its
files are made read-only, since engine directories link to them. Relies on: rename(2) of a directory being
atomic within one file system, and flock(2) being honoured by every process that shares the store.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_factory import digest
from whisper_factory.errors import EnvironmentFault, FactoryError

RECORD = "step.json"
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = ("No space left", "StorageFull")  # as ONNX Runtime and safetensors put it
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST,
           errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY, errno.ESTALE)


@dataclass(frozen=True)
class Finished:
    """A step in the store."""

    path: Path
    record: dict[str, Any]  # step, key, params, inputs, tools, outputs {file: bytes, sha256}, seconds


def default_path() -> Path:
    """`$XDG_CACHE_HOME/whisper_factory`, or `~/.cache/whisper_factory`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "whisper_factory"
    except RuntimeError as error:
        raise EnvironmentFault("this user has no home directory to keep the store in; give store.path=DIR") from error


class Store:
    """Finished steps by name and key, below one directory that is made on first use."""

    def __init__(self, root: Path):
        self.root = root

    @property
    def downloads(self) -> Path:
        """Where downloads lie by digest, interrupted ones too: a fetch that fails later loses none of them."""
        return self.root / "downloads"

    def find(self, step: str, key: str) -> Finished | None:
        """The finished step, or None: also if a file of it is gone or has another size than its record says."""
        path = self.root / step / key
        try:
            record = json.loads((path / RECORD).read_text(encoding="utf-8"))
            whole = all((path / name).stat().st_size == about["bytes"] for name, about in record["outputs"].items())
            return Finished(path, record) if whole else None
        except PermissionError as error:
            raise EnvironmentFault(f"the store's {error.filename} cannot be read ({error.strerror}); "
                                   "store.path=DIR moves the store") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock of that name; `on_wait` is called if another process has it now."""
        import filelock

        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.root / "locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def make(self, step: str, key: str, about: dict[str, Any], work: Callable[[Path], None],
             say: Callable[[str], None]) -> Finished:
        """Run `work(directory)` once for this key, however many processes ask, and keep what it wrote.

        Args:
            about: what else the record says (params, inputs, tools).
            work: writes the step's files into the empty directory it is given. If it raises, nothing is kept.
            say: told when another process is at work on the same step.

        Raises:
            EnvironmentFault: the store cannot be written, or its disk is full.
        """
        try:
            for folder in ("tmp", step):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            with self.lock(key, lambda: say(f"{step}: another process is at work on it, waiting")):
                return self.find(step, key) or self._run(step, key, about, work)
        except FactoryError:
            raise
        except Exception as error:  # libraries report a full disk in exceptions of their own
            known = fault(error, self.root, "store.path=DIR moves the store")
            if known is None:
                raise
            raise known from error

    def _run(self, step: str, key: str, about: dict[str, Any], work: Callable[[Path], None]) -> Finished:
        scratch = self.root / "tmp" / key
        if scratch.exists():  # left by a process that was killed: its lock is ours now
            shutil.rmtree(scratch)
        scratch.mkdir()
        started = time.monotonic()
        try:
            work(scratch)
            seconds = round(time.monotonic() - started, 3)
            outputs = digest.of_tree(scratch)
            record = {"step": step, "key": key, **about, "outputs": outputs, "seconds": seconds}
            (scratch / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            _settle(scratch)
            final = self.root / step / key
            if final.exists():  # damaged, or `find` would have returned it
                shutil.rmtree(final)
            os.rename(scratch, final)
            flush(final.parent)
            return Finished(final, record)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def fault(error: Exception, where: Path, remedy: str) -> EnvironmentFault | None:
    """One line for an error that is the file system's doing, with what is free there; None for any other."""
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL or any(word in str(error) for word in FULL_WORDS):
        existing = next(path for path in (where, *where.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free / 1e6
        return EnvironmentFault(f"no space left under {where} ({free:.0f} MB free); make room, or {remedy}")
    if not isinstance(error, OSError) or error.filename is None:
        return None
    place = Path(os.fsdecode(error.filename))
    ours = place.is_relative_to(where) or where.is_relative_to(place)
    if ours and (number in REFUSED or (number == errno.ENOENT and not where.exists())):
        return EnvironmentFault(f"cannot write {place} ({error.strerror}); {remedy}")
    return None


def _settle(directory: Path) -> None:
    """Flush every file to disk and make it read-only, so that a rename publishes whole, safe files."""
    for path in directory.rglob("*"):
        if path.is_file():
            flush(path)
            path.chmod(0o555 if os.access(path, os.X_OK) else 0o444)
    flush(directory)


def flush(path: Path) -> None:
    """Force a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none or is another one."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)
