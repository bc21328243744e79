"""Finished steps: finding them, checking them, and making them once."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_factory import digest
from whisper_factory.errors import EnvironmentFault, FactoryError
from whisper_factory.store import files, holds, trust

log = logging.getLogger(__name__)
RECORD = "step.json"
TMP, DOWNLOADS, CACHES = "tmp", "downloads", "caches"
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


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
        self._at_work = False
        self._hashed: dict[Path, trust.Looks] = {}  # by this process, where the store could not keep it
        self._told: set[Path] = set()

    @property
    def downloads(self) -> Path:
        """Where downloads lie by digest, interrupted ones too: a fetch that fails later loses none of them."""
        return self.root / DOWNLOADS

    @property
    def caches(self) -> Path:
        """Where toolkits keep what makes their next build faster; no step's bytes depend on it being there."""
        return self.root / CACHES

    def scratch(self, key: str) -> Path:
        """A directory that is not there, for work on a key. If it is left there, gc takes it for left over."""
        return self.root / TMP / f"{key}.{holds.mine()}"

    def find(self, step: str, key: str) -> Finished | None:
        """The finished step, or None: also if it is damaged, of which a warning then tells.

        Trusts a file's size, time and inode, where they are as when the step was stored; hashes it otherwise.
        """
        path = self.root / step / key
        try:
            record = _record(path)
            if record is None:
                return None
            trusted = trust.read(path) | self._hashed.get(path, {})
            now = trust.looks(path, record["outputs"])
            wrong = trust.damage(path, record["outputs"], trusted)
        except PermissionError as error:
            raise EnvironmentFault(f"the store's {error.filename} cannot be read ({error.strerror}); "
                                   "store.path=DIR moves the store") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._warn(Finished(path, {}), {RECORD: "it cannot be read"})
            return None
        found = Finished(path, record)
        if wrong:
            self._warn(found, wrong)
            return None
        if any(trusted.get(name) != look for name, look in now.items()):
            self._hashed[path] = now
            with suppress(OSError):
                trust.write(path, now)
        return found

    def is_sound(self, found: Finished) -> bool:
        """Whether every file has the SHA-256 of its record: hashes them all; a warning names those that have not."""
        wrong = trust.damage(found.path, found.record["outputs"])
        if wrong:
            self._warn(found, wrong)
        return not wrong

    def _warn(self, found: Finished, wrong: dict[str, str]) -> None:
        for name, why in wrong.items():
            if found.path / name not in self._told:
                self._told.add(found.path / name)
                log.warning("warning: %s is damaged: %s; %s has to be made again", found.path / name, why,
                            found.path.parent.name)

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
        """Hold the lock of that name; `on_wait` is called if another process has it now. See `holds.locked`."""
        with holds.locked(self.root / holds.LOCKS / f"{name}.lock", on_wait=on_wait) as held:
            yield held

    @contextmanager
    def use(self, about: str = "") -> Iterator[None]:
        """Be at work in the store: until this ends, gc removes nothing.

        Args:
            about: what is being made, told to whoever is kept waiting.
        """
        if self._at_work:
            yield
            return
        with holds.at_work(self.root, about, lambda: log.info("the store is being tidied, waiting")):
            self._at_work = True
            try:
                yield
            finally:
                self._at_work = False

    def make(self, step: str, key: str, about: dict[str, Any], work: Callable[[Path], Mapping[str, str] | None],
             say: Callable[[str], None], check: bool = False) -> Finished:
        """Run `work(directory)` once for this key, however many processes ask, and keep what it wrote.

        Args:
            about: what else the record says (params, inputs, tools).
            work: writes the step's files into the empty directory it is given; returns the SHA-256 of those that it has
                hashed as it wrote them. If it raises, nothing is kept.
            say: told when another process is at work on the same step.
            check: hash a step that is there already, and replace it if it is damaged.

        Raises:
            EnvironmentFault: the store cannot be written, or its disk is full.
        """
        def there() -> Finished | None:
            found = self.find(step, key)
            return found if found and (not check or self.is_sound(found)) else None

        try:
            for folder in (TMP, step):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            waiting = f"{step}: another process is at work on it, waiting"
            with self.use(f"{step} {key[:12]}"), self.lock(key, lambda: say(waiting)) as held:
                return there() or self._run(step, key, about, work, there, held)
        except FactoryError:
            raise
        except Exception as error:  # libraries report a full disk in exceptions of their own
            known = files.fault(error, self.root, "store.path=DIR moves the store")
            if known is None:
                raise
            raise known from error

    def _run(self, step: str, key: str, about: dict[str, Any], work: Callable[[Path], Mapping[str, str] | None],
             there: Callable[[], Finished | None], held: bool) -> Finished:
        if held:  # whoever left these on this host was killed
            for left in (self.root / TMP).glob(f"{key}.{holds.host()}.*"):
                shutil.rmtree(left, ignore_errors=True)
        scratch = self.scratch(key)
        scratch.mkdir()
        started = time.monotonic()
        try:
            known = work(scratch)
            seconds = round(time.monotonic() - started, 3)
            outputs = digest.of_tree(scratch, known or {})
            record = {"step": step, "key": key, **about, "outputs": outputs, "seconds": seconds}
            (scratch / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            trust.write(scratch, trust.looks(scratch, outputs))  # a rename changes none of it
            files.settle(scratch)
            return self._publish(scratch, Finished(self.root / step / key, record), there)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # not there any more, if all went well

    def _publish(self, scratch: Path, made: Finished, there: Callable[[], Finished | None]) -> Finished:
        """Rename onto the final name. Where somebody was first theirs is taken; a damaged one is renamed away."""
        while True:
            try:
                os.rename(scratch, made.path)
                files.flush(made.path.parent)
                return made
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
            judged = _inode(made.path)
            if theirs := there():
                return theirs
            self.discard(made.path, judged)

    def discard(self, path: Path, judged: int | None = None) -> None:
        """Take a step's directory out of the store: at once for everybody, then file by file.

        Args:
            judged: the inode of the directory that was found damaged; another, which somebody put there since, stays.
        """
        away = self.root / TMP / f"{path.name}.{holds.mine()}"
        with suppress(FileNotFoundError):  # somebody was first
            os.rename(path, away)
            if judged is not None and _inode(away) != judged:
                with suppress(OSError):  # somebody else may have put one there
                    return os.rename(away, path)
            shutil.rmtree(away, ignore_errors=True)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _record(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((path / RECORD).read_text(encoding="utf-8"))
        return record
    except FileNotFoundError:
        return None
