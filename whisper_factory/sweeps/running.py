"""A sweep from the outside: where it keeps its papers, and what is written when its jobs are done."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_factory import __version__, digest
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.sweeps import rows
from whisper_factory.sweeps.front import Row

SWEEP = ("-m", "--multirun")
FOLDER = "sweeps"  # below the outputs
ROWS = "rows"
ASKING = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")
LAUNCHER = ("hydra/launcher", "hydra.launcher")
# Settings of a run, not of the engines it makes: the same sweep elsewhere, or on other machines, keeps its key.
RUN_ONLY = ("outputs", "store", "dry_run", "stop_after", "quiet", "lock", "verify")


@dataclass(frozen=True)
class Sweep:
    """One multirun: its arguments as Hydra shall see them, and its directory."""

    arguments: list[str]
    key: str
    directory: Path
    command: str
    dry: bool = False
    quiet: bool = False

    @property
    def rows(self) -> Path:
        """Where its jobs leave their rows."""
        return self.directory / ROWS


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for more than one composition to be made, and not only to be told something."""
    if any(argument.partition("=")[0] in ASKING for argument in arguments):
        return False
    return any(argument in SWEEP or argument.lower() == "hydra.mode=multirun" for argument in arguments)


def prepare(arguments: Sequence[str], scratch: Path) -> Sweep:
    """The sweep that a command line is. `-m` goes first: Hydra's parser wants the overrides in one piece.

    Args:
        scratch: an empty directory, for a dry run, which leaves nothing behind.
    """
    said = sorted(arguments, key=lambda argument: argument not in SWEEP)
    dry = bool(_value(said, "dry_run", False))
    if dry:  # plans are made here, whatever would have made the engines
        said = [word for word in said if not word.startswith(LAUNCHER)]
    declared = sorted(word for word in said if not word.startswith("-") and not word.startswith(LAUNCHER)
                      and word.lstrip("+~").partition("=")[0].partition(".")[0] not in RUN_ONLY)
    key = digest.of_data({"sweep": declared})
    outputs = Path(str(_value(said, "outputs", "outputs"))).expanduser()
    chosen = _value(said, "hydra.sweep.dir", None)
    directory = scratch if dry else Path(str(chosen)) if chosen else outputs / FOLDER / key[:12]
    command = shlex.join(["python", "-m", "whisper_factory", *arguments])
    return Sweep(said, key, directory.absolute(), command, dry, bool(_value(said, "quiet", False)))


@contextmanager
def at_work(sweep: Sweep) -> Iterator[list[str]]:
    """Yield the arguments for Hydra while this process alone works on the sweep.

    Raises:
        EnvironmentFault: another process is at work on the same sweep, or its directory cannot be written.
    """
    import filelock

    try:
        sweep.directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(sweep.directory / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise EnvironmentFault(f"another process is at work on this sweep ({sweep.directory}); wait for it, or give "
                               "outputs=DIR") from error
    except OSError as error:
        raise EnvironmentFault(f"cannot write {sweep.directory} ({error.strerror}); outputs=DIR moves the "
                               "outputs") from error
    try:
        shutil.rmtree(sweep.rows, ignore_errors=True)
        yield [*sweep.arguments, _override("hydra.sweep.dir", sweep.directory)]
    finally:
        lock.release()


def finish(sweep: Sweep, whole: bool = True) -> int:
    """Write the report, print the table, and return the exit code of the first composition that failed.

    Args:
        whole: whether all compositions were begun.
    """
    from whisper_factory.sweeps import page, table

    collected: list[Row] = rows.read(sweep.rows)
    if collected and not sweep.dry:
        about = {"key": sweep.key, "command": sweep.command, "whisper_factory": __version__, "whole": whole}
        page.write(sweep.directory, about, collected)
        if not sweep.quiet:
            left = "" if whole else f"\n\n{page.CUT_SHORT}"
            print(f"\n{table.table(collected)}{left}\n\nreport      {sweep.directory / 'report.html'}")
    if whole and not collected and not sweep.dry:
        raise UserError("the sweep has no compositions: one of its ranges or globs is empty")
    return next((row["exit_code"] for row in collected if row["exit_code"]), 0)


def _value(arguments: Sequence[str], key: str, otherwise: Any) -> Any:
    """What the last override of a key says, read as Hydra reads it."""
    said = [word for word in arguments if word.partition("=")[0].lstrip("+") == key]
    if not said:
        return otherwise
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(said[-1]).value()


def _override(key: str, path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{text}'"
