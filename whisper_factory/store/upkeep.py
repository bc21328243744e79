"""Looking after a store: `verify` hashes everything, `gc` removes what nobody needs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from whisper_factory import digest
from whisper_factory.errors import EnvironmentFault
from whisper_factory.store import files, holds, trust
from whisper_factory.store.holds import BusyError
from whisper_factory.store.steps import RECORD, TMP, Store
from whisper_factory.store.survey import KEY, Survey, freed, read_record, survey, weight
from whisper_factory.store.users import State

REBUILT = "verify."  # stores of verify=true, within this one
A_DAY = 86400.0  # seconds after which what another host left is taken for left over


@dataclass(frozen=True)
class Damage:
    """A file that is not what was stored."""

    file: Path
    why: str


@dataclass(frozen=True)
class Removal:
    """Something that gc removes, and why."""

    path: Path
    size: int
    why: str


@dataclass(frozen=True)
class Sweep:
    """What gc found: what goes, how many bytes come free, and what was left alone for a reason worth telling."""

    removals: list[Removal]
    freed: int
    left: list[str]


def verify(store: Store, found: Survey, repair: bool = False) -> Iterator[Damage]:
    """Hash every file of every step, and every download, and give what is damaged as it is found.

    Args:
        repair: take what is damaged out of the store, so that the next run that needs it makes it again.
    """
    for stored in found.steps:
        wrong = _damage(store, stored.step, stored.key)
        yield from (Damage(stored.path / name, why) for name, why in wrong.items())
        if wrong and repair:
            with store.lock(stored.key):
                if _damage(store, stored.step, stored.key):  # still: a run may just have made it again
                    store.discard(stored.path)
    for path in found.downloads:
        if KEY.fullmatch(path.name) and (sha256 := digest.of_file(path)) != path.name:
            yield Damage(path, f"its SHA-256 is {sha256[:12]} instead of {path.name[:12]}")
            if repair:
                path.unlink()


def _damage(store: Store, step: str, key: str) -> dict[str, str]:
    path = store.root / step / key
    if not path.exists():  # gone since
        return {}
    record = read_record(path)
    return trust.damage(path, record["outputs"]) if record else {RECORD: "it cannot be read"}


def gc(store: Store, dry_run: bool = False) -> Sweep:
    """Remove the steps that no output directory needs, the downloads that no kept step has, and what was left over.

    Raises:
        EnvironmentFault: somebody is at work in the store, who is named; or the store is read-only.
        UserError: it is no store.
    """
    survey(store.root)
    try:
        with holds.locked(store.root / holds.LOCKS / holds.WHOLE, wait=False) as held:
            _refuse_others_at_work(store.root, held)
            swept = _sweep(survey(store.root))
            if not dry_run:
                _remove(store, swept)
    except BusyError:
        raise EnvironmentFault(f"the store {store.root} is in use by {holds.blockers(store.root)}; "
                               "run gc again when that is done") from None
    return swept


def _refuse_others_at_work(root: Path, locks_hold: bool) -> None:
    """Where locks do not hold, or not from host to host, a run is known by its record alone."""
    for path, where, process in holds.runs(root):
        if where == holds.host():
            at_work = not locks_hold and Path(f"/proc/{process}").exists()
        else:
            at_work = _age(root, path) < A_DAY
        if at_work:
            raise EnvironmentFault(f"process {process} on {where} may be at work in the store {root}; run gc again "
                                   f"when it is done, or remove {path} if it does not run")


def _sweep(found: Survey) -> Sweep:
    needed = found.needed()
    kept = [stored for stored in found.steps if stored.key in needed]
    have = {about["sha256"] for stored in kept for about in stored.record.get("outputs", {}).values()}
    gone = [Removal(stored.path, stored.size, "no output directory needs it") for stored in found.steps
            if stored.key not in needed]
    gone += [_left(path, "no step that is kept has it") for path in found.downloads if path.name not in have]
    gone += [_left(user.record, f"{user.directory} is gone") for user in found.users if user.state is State.GONE]
    left = [f"{user.directory} on {user.host} cannot be seen from here, so its steps are kept; if it is gone, "
            f"remove {user.record}" for user in found.users if user.state is State.UNSEEN]
    for path in sorted(path for path in (found.root / TMP).glob("*") if KEY.match(path.name)):
        if f".{holds.host()}." in path.name or _age(found.root, path) > A_DAY:
            gone.append(_left(path, "left over"))
        else:
            left.append(f"{path}: another host may be at work on it; it goes a day after its last change")
    gone += [_left(path, "left over") for path in sorted(found.root.glob(f"{REBUILT}*"))]
    known = {key for user in found.users for key in user.keys}
    left += [f"{stored.path}: its files are linked from a directory that the store has no record of"
             for stored in found.steps if stored.key in found.linked - known]
    return Sweep(gone, freed(removal.path for removal in gone), left)


def _left(path: Path, why: str) -> Removal:
    return Removal(path, weight([path]), why)


def _remove(store: Store, swept: Sweep) -> None:
    try:
        for removal in swept.removals:
            path = removal.path
            if path.parent.name == TMP or path.name.startswith(REBUILT):
                shutil.rmtree(path)
            elif path.is_dir():
                store.discard(path)
            else:
                path.unlink(missing_ok=True)
        for folder in (holds.LOCKS, holds.RUNS):  # nobody is at work
            for path in (store.root / folder).glob("*"):
                if path.name != holds.WHOLE:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise files.fault(error, store.root, "gc needs to write in the store") or error from error


def _age(root: Path, path: Path) -> float:
    """Seconds since the last change below a path, by the clock of the file system that keeps it."""
    newest = max((found.lstat().st_mtime for found in (path, *path.rglob("*")) if os.path.lexists(found)), default=0.0)
    now = time.time()
    probe = root / TMP / f"clock.{holds.mine()}"
    with suppress(OSError):
        probe.touch()
        now = probe.lstat().st_mtime
        probe.unlink()
    return now - newest
