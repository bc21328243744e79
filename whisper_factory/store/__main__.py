"""`python -m whisper_factory.store ls|verify|gc`: what the store holds, whether it is whole, and what can go."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from whisper_factory import console
from whisper_factory.errors import UserError, choices
from whisper_factory.flags import Parser
from whisper_factory.store import upkeep
from whisper_factory.store.steps import Store, default_path
from whisper_factory.store.survey import KEY, Survey, survey, weight
from whisper_factory.store.users import State

DAMAGED = 3


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = Parser(prog="python -m whisper_factory.store", description="Look after the store of finished steps.",
                   allow_abbrev=False)
    commands = flags.add_subparsers(dest="command", metavar="ls|verify|gc", required=True)
    said = {
        "ls": "list finished steps, their sizes, and the output directories that use them",
        "verify": "hash every file; exit code 3 if one is damaged",
        "gc": "remove the steps that no output directory needs, downloads that no kept step has, and left-overs",
    }
    made = {name: commands.add_parser(name, help=about, description=about, allow_abbrev=False)
            for name, about in said.items()}
    for command in made.values():
        command.add_argument("--store", type=Path, metavar="DIR", help="what store.path says (default: its default)")
    made["verify"].add_argument("--repair", action="store_true", help="take damaged steps and downloads out of the "
                                "store, so that the next run makes them again; exit code 0 then")
    made["gc"].add_argument("--dry_run", action="store_true", help="only say what would be removed")
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 our bug, 2 the user's mistake, 3 damage, 4 the environment."""
    return console.run(lambda: _run(_parse(arguments)))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    known, unknown = parser().parse_known_args(arguments)
    if unknown:
        valid = [f"--{name}" for name in vars(known) if name != "command"]
        wrong = unknown[0].partition("=")[0]
        raise UserError(f"unknown flag '{wrong}' of {known.command}; {choices(wrong, valid)}")
    return known


def _run(wanted: argparse.Namespace) -> int:
    store = Store((wanted.store or default_path()).expanduser().absolute())
    if wanted.command == "ls":
        _list(survey(store.root))
        return 0
    if wanted.command == "verify":
        return _verify(store, wanted.repair)
    _gc(store, wanted.dry_run)
    return 0


def _list(found: Survey) -> None:
    numbers = {user.record: number for number, user in enumerate(found.users, 1)}
    for stored in found.steps:
        used = [f"[{numbers[user.record]}]" for user in found.used_by(stored)]
        if not used and stored.key in found.linked:
            used = ["linked from a directory without a record"]
        said = " ".join(used) or "not used"
        print(f"{stored.step:9} {stored.key[:12]}  {_mb(stored.size)}  {stored.about:32} {said}")
    for user in found.users:
        state = "" if user.state is State.ALIVE else f" ({user.state.value})"
        print(f"[{numbers[user.record]}] {user.directory}{state}")
    steps = [stored.path for stored in found.steps]
    shared = weight(steps) + weight(found.downloads) - weight([*steps, *found.downloads])
    of_them = f", {_mb(shared).strip()} of it shared with steps" if shared else ""
    print(f"downloads {len(found.downloads)} files, {_mb(weight(found.downloads)).strip()}{of_them}")
    print(f"total     {len(steps)} steps, {_mb(weight([*steps, *found.downloads])).strip()} in {found.root}")


def _verify(store: Store, repair: bool) -> int:
    with store.use("verify"):
        found = survey(store.root)
        damaged = 0
        for damage in upkeep.verify(store, found, repair):
            damaged += 1
            print(f"damaged   {damage.file}: {damage.why}", flush=True)
            for user in found.users:
                if damage.file.parent.name in user.keys or any(part in user.keys for part in damage.file.parts):
                    print(f"          used by {user.directory}")
    if damaged and repair:
        print("          taken out of the store; the next run of a composition that needs it makes it again")
    print(f"verified  {len(found.steps)} steps, {len(found.downloads)} downloads; "
          + (f"damaged files: {damaged}" if damaged else "all as they were stored"))
    if damaged and not repair:
        print("          --repair takes them out of the store, to be made again by the next run that needs them")
    return DAMAGED if damaged and not repair else 0


def _gc(store: Store, dry_run: bool) -> None:
    swept = upkeep.gc(store, dry_run)
    for removal in swept.removals:
        name = KEY.sub(lambda key: key[0][:12], str(removal.path.relative_to(store.root)), count=1)
        print(f"{'would go' if dry_run else 'removed':9} {name:42} {_mb(removal.size)}  {removal.why}")
    for line in swept.left:
        print(f"left      {line}")
    print(f"{'would free' if dry_run else 'freed'} {_mb(swept.freed).strip()}")


def _mb(size: int) -> str:
    return f"{size / 1e6:7.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
