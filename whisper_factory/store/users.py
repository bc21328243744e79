"""Who needs which steps: one small record per output directory, users/<digest>.json.

A record only says where to look. What a directory needs is what its manifest.json names now; a record is out of date
only where its directory can be seen to be gone: on this host, or through the same network file system, with the disk
that it was on mounted. Any other is kept, and so is what it needs.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from whisper_factory.store import files, holds

USERS = "users"
MANIFEST = "manifest.json"


class State(Enum):
    """What is known of an output directory."""

    ALIVE = "alive"
    GONE = "gone"
    UNSEEN = "cannot be seen from here"


@dataclass(frozen=True)
class User:
    """An output directory, by its record."""

    record: Path
    directory: Path
    host: str
    state: State
    keys: frozenset[str]  # of the steps that it needs


def note(root: Path, directory: Path) -> None:
    """Keep a record of an output directory and of the steps that its manifest names. A read-only store keeps none."""
    with suppress(OSError, ValueError, KeyError):
        where = directory.resolve()
        about = {"directory": str(where), "host": holds.host(), "mount": _mount(where), "keys": _keys(where)}
        text = json.dumps(about, indent=2, sort_keys=True) + "\n"
        name = hashlib.sha256(f"{about['host']}\0{where}".encode(errors="surrogateescape")).hexdigest()[:32]
        record = root / USERS / f"{name}.json"
        if not record.is_file() or record.read_text(encoding="utf-8") != text:
            record.parent.mkdir(exist_ok=True)
            files.replace(record, text)


def everyone(root: Path) -> list[User]:
    """Every output directory that the store has a record of."""
    return [user for path in sorted((root / USERS).glob("*.json")) if (user := _read(path))]


def _read(record: Path) -> User | None:
    try:
        about = json.loads(record.read_text(encoding="utf-8"))
        directory, host, noted = Path(about["directory"]), str(about["host"]), frozenset(about["keys"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not ours, or half-written by a disk that was full
    try:
        now = frozenset(_keys(directory).values())
        return User(record, directory, host, State.ALIVE, now if host == holds.host() else now | noted)
    except (FileNotFoundError, NotADirectoryError):
        state = State.GONE if _would_be_seen(host, directory, about.get("mount")) else State.UNSEEN
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        state = State.UNSEEN
    return User(record, directory, host, state, noted if state is State.UNSEEN else frozenset())


def _keys(directory: Path) -> dict[str, str]:
    steps = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["steps"]
    return {name: about["key"] for name, about in steps.items()}


def _would_be_seen(host: str, directory: Path, mount: list[str] | None) -> bool:
    """Whether a directory could be read here if it were still there: its file system is mounted where it was."""
    if mount != _mount(directory):
        return False
    is_network = mount is not None and (":" in mount[1] or mount[1].startswith("//"))
    return host == holds.host() or is_network


def _mount(directory: Path) -> list[str] | None:
    """Where the file system that holds a path is mounted, and what it is: a device, or host:/export."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best: list[str] | None = None
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape") \
            .encode("latin-1").decode("utf-8", "surrogateescape")
        if directory.is_relative_to(point) and (best is None or len(point) >= len(best[0])):
            best = [point, right.split()[1]]
    return best
