"""The table that a sweep prints at its end, for terminals of 80 columns and more, and for pipes."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from whisper_factory.sweeps.front import Numeric, Ranked, Row, number, ranked

MISSING = "-"
# Heading, its unit, which number, how it is written.
COLUMNS: tuple[tuple[str, str, Numeric, str], ...] = (
    ("WER", "%", "wer", ".2f"),
    ("p50", "ms", "latency_ms_p50", ".0f"),
    ("p95", "ms", "latency_ms_p95", ".0f"),
    ("RTF", "", "real_time_factor", ".3f"),
    ("peak", "MB", "peak_mb", ".0f"),
    ("engine", "MB", "engine_mb", ".1f"),
    ("build", "s", "build_seconds", ".1f"),
)
NARROWEST, PIPE = 60, 100  # characters


def table(rows: Sequence[Row], width: int | None = None) -> str:
    """All compositions, front first, and what is to be known of those that missed a gate or failed.

    Args:
        width: of the widest line of the table, in characters; None: the terminal's, or 100 in a pipe. Names that are
            too long for it go on in the next line; the lines about failures are as long as their errors.
    """
    width = max(NARROWEST, width or shutil.get_terminal_size((PIPE, 24)).columns)
    entries = ranked(rows)
    cells = [[heading for heading, *_ in COLUMNS], [unit for _, unit, *_ in COLUMNS],
             *([written(entry.row, column, form) for *_, column, form in COLUMNS] for entry in entries)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    digits = len(str(len(entries)))
    room = width - digits - 4 - sum(2 + one for one in widths)
    wrapped = [textwrap.wrap(entry.label, room) for entry in entries]
    longest = max((len(line) for lines in wrapped for line in lines), default=0)

    def line(before: str, name: str, numbers: Sequence[str]) -> str:
        padded = "".join(f"  {cell:>{one}}" for cell, one in zip(numbers, widths, strict=True))
        return f"{before:>{digits + 2}}  {name:<{longest}}{padded}".rstrip()

    lines = [line("", "", cells[0]), line("", "", cells[1])]
    for entry, name, numbers in zip(entries, wrapped, cells[2:], strict=True):
        lines.append(line(f"{entry.number} {sign(entry)}", name[0], numbers))
        lines += [line("", rest, [""] * len(COLUMNS)) for rest in name[1:]]
    return "\n".join([*lines, *_below(entries)])


def written(row: Row, column: Numeric, form: str) -> str:
    """A number as the tables show it, a dash where there is none."""
    value = number(row, column)
    return MISSING if value is None else format(value, form)


def sign(entry: Ranked) -> str:
    """One character that says how a composition did."""
    return "*" if entry.on_front else {"passed": " ", "missed": "!", "failed": "x"}[entry.row["status"]]


def summary(entries: Sequence[Ranked]) -> str:
    """How many compositions there are, and how they did."""
    count = {status: sum(entry.row["status"] == status for entry in entries) for status in ("missed", "failed")}
    on_front = sum(entry.on_front for entry in entries)
    parts = [f"{len(entries)} composition{'' if len(entries) == 1 else 's'}", f"{on_front} on the Pareto front"]
    if count["missed"]:
        parts.append(f"{count['missed']} missed a gate")
    if count["failed"]:
        parts.append(f"{count['failed']} failed")
    return ", ".join(parts)


def _below(entries: Sequence[Ranked]) -> list[str]:
    lines = ["", summary(entries), "* on the front of WER, p50 latency and peak memory  ! missed a gate  x failed"]
    for entry in entries:
        row = entry.row
        if row["status"] != "passed":
            verdict = "failed" if row["status"] == "failed" else "missed a gate"
            reason = f": {row['error']}" if row["error"] else ""
            lines += [f"{entry.number} {verdict} (exit code {row['exit_code']}){reason}", f"  {row['command']}"]
    return lines
