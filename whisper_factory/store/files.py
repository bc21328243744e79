"""What the store asks of a file system: links, flushing, and errors told in one line."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from whisper_factory.errors import EnvironmentFault
from whisper_factory.store import holds

NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = ("No space left", "StorageFull")  # as ONNX Runtime and safetensors put it
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST,
           errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY, errno.ESTALE)


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


def settle(directory: Path) -> None:
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
    """A hard link, or where the file system has none or is another one a copy, with its source's time."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)
        found = source.stat()
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace(path: Path, text: str) -> None:
    """Put a small file in place whole, whoever else does the same."""
    fresh = path.with_name(f".{path.name}.new.{holds.mine()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
