"""Whether a finished step's files are still what was stored: by size, time and inode, or by hashing them.

`stat.json` lies beside a step's record and says how each file looked when it was last known to be right. It is no
part of the step: a store that was copied has other inodes, is hashed once, and gets a new one.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_factory import digest
from whisper_factory.store import files

STAT = "stat.json"

Looks = dict[str, list[int]]  # file -> bytes, mtime in ns, inode


def looks(path: Path, outputs: dict[str, Any]) -> Looks:
    """How a step's files look now; those that are gone are left out."""
    found = {}
    for name in outputs:
        with suppress(FileNotFoundError, NotADirectoryError):
            seen = (path / name).stat()
            found[name] = [seen.st_size, seen.st_mtime_ns, seen.st_ino]
    return found


def write(path: Path, now: Looks) -> None:
    """Vouch for a step's files as they look now."""
    files.replace(path / STAT, json.dumps(now, sort_keys=True) + "\n")


def read(path: Path) -> Looks:
    """How a step's files looked when they were last known to be right; nothing where that was not kept."""
    try:
        kept: Looks = json.loads((path / STAT).read_text(encoding="utf-8"))
        return kept if isinstance(kept, dict) else {}
    except (OSError, ValueError):
        return {}


def damage(path: Path, outputs: dict[str, Any], trusted: Looks | None = None) -> dict[str, str]:
    """The damaged files of a step, each with what is wrong with it.

    Args:
        outputs: bytes and sha256 of each file, from the step's record.
        trusted: files that look like this are not read; None: every file is hashed.
    """
    found, wrong = looks(path, outputs), {}
    for name, about in outputs.items():
        if name not in found:
            wrong[name] = "it is gone"
        elif found[name][0] != about["bytes"]:
            wrong[name] = f"it has {found[name][0]} bytes instead of {about['bytes']}"
        elif trusted is None or trusted.get(name) != found[name]:
            try:
                sha256 = digest.of_file(path / name)
            except PermissionError:
                raise
            except OSError as error:  # a disk that cannot read it back
                sha256 = os.strerror(error.errno or 0)
            if sha256 != about["sha256"]:
                wrong[name] = f"its SHA-256 is {sha256[:12]} instead of {about['sha256'][:12]}"
    return wrong
