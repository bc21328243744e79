"""What is in a store: steps, who uses them, downloads, and what was left over."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_factory.errors import UserError
from whisper_factory.store import holds, trust, users
from whisper_factory.store.steps import DOWNLOADS, RECORD, TMP
from whisper_factory.store.users import User

KEY = re.compile(r"[0-9a-f]{64}")
OTHERS = (TMP, DOWNLOADS, users.USERS, holds.LOCKS, holds.RUNS)  # folders that hold no steps

Inode = tuple[int, int]


@dataclass(frozen=True)
class Stored:
    """A step's directory: its record (empty if that cannot be read), and its bytes."""

    step: str
    key: str
    path: Path
    record: dict[str, Any]
    size: int

    @property
    def about(self) -> str:
        """Of which model and in what shape, as far as the record says it."""
        params = self.record.get("params", {})
        spec = params.get("spec", params)
        words = (spec.get("model") or ", ".join(params.get("files", {})) or params.get("name"), *(
            spec[axis]["name"] for axis in ("precision", "profile") if isinstance(spec.get(axis), dict)))
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Survey:
    """A store at one moment."""

    root: Path
    steps: list[Stored]
    users: list[User]
    downloads: list[Path]
    linked: frozenset[str]  # keys of steps with files that are linked from outside the store

    def used_by(self, stored: Stored) -> list[User]:
        """The output directories that need a step."""
        return [user for user in self.users if stored.key in user.keys]

    def needed(self) -> frozenset[str]:
        """Keys of the steps that some output directory needs, and of what they were made from."""
        inputs = {stored.key: stored.record.get("inputs", {}).values() for stored in self.steps}
        waiting, found = [*self.linked, *(key for user in self.users for key in user.keys)], set()
        while waiting:
            key = waiting.pop()
            if key not in found:
                found.add(key)
                waiting += inputs.get(key, ())
        return frozenset(found)


def survey(root: Path) -> Survey:
    """Look at a whole store.

    Raises:
        UserError: the directory is not a store.
    """
    if not (root / holds.LOCKS).is_dir() and not (root / DOWNLOADS).is_dir():
        raise UserError(f"'{root}' is not a store; --store DIR names one: what store.path was, "
                        "or its default, ~/.cache/whisper_factory")
    steps = sorted(_steps(root), key=lambda stored: (stored.step, stored.key))
    downloads = sorted(path for path in (root / DOWNLOADS).glob("*") if KEY.match(path.name))
    return Survey(root, steps, users.everyone(root), downloads, _linked(steps, downloads))


def _steps(root: Path) -> Iterator[Stored]:
    for path in root.glob("*/*"):
        is_ours = path.parent.name not in OTHERS and KEY.fullmatch(path.name)
        if is_ours and ((path / RECORD).exists() or (path / trust.STAT).exists()):
            yield Stored(path.parent.name, path.name, path, read_record(path), weight([path]))


def read_record(path: Path) -> dict[str, Any]:
    """A step's record, or nothing where it cannot be read."""
    with suppress(OSError, ValueError):
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if isinstance(record, dict) and isinstance(record.get("outputs"), dict):
            return record
    return {}


def _linked(steps: list[Stored], downloads: list[Path]) -> frozenset[str]:
    """Steps with a file that has more names than the store has for it."""
    names = links([*(stored.path for stored in steps), *downloads])
    return frozenset(stored.key for stored in steps
                     if any(found.st_nlink > names[found.st_dev, found.st_ino] for found in _stats([stored.path])))


def links(paths: Iterable[Path]) -> Counter[Inode]:
    """How many names each file has below these paths."""
    return Counter((found.st_dev, found.st_ino) for found in _stats(paths))


def weight(paths: Iterable[Path]) -> int:
    """Bytes below these paths, each file once however many names it has there."""
    return sum({(found.st_dev, found.st_ino): found.st_size for found in _stats(paths)}.values())


def freed(paths: Iterable[Path]) -> int:
    """Bytes that come free when all below these paths goes: those of files that have no other name."""
    there = list(_stats(paths))
    names = Counter((found.st_dev, found.st_ino) for found in there)
    gone = {(found.st_dev, found.st_ino): found.st_size for found in there
            if found.st_nlink <= names[found.st_dev, found.st_ino]}
    return sum(gone.values())


def _stats(paths: Iterable[Path]) -> Iterator[Any]:
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else (path,):
            with suppress(OSError):  # taken away while we look
                found = file.lstat()
                if not file.is_dir():
                    yield found
