"""A sweep's compositions in order: which of them are on the Pareto front, and what to call each.

A composition is on the front if it passed its gates and no other that did is at least as good in word error rate,
latency and memory, and better in one of them. Compositions that are equal in all three are on it together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, cast

OBJECTIVES = ("wer", "latency_ms_p50", "peak_mb")  # the smaller, the better

Numeric = Literal["wer", "reference_wer", "wer_increase", "token_agreement", "latency_ms_p50", "latency_ms_p95",
                  "real_time_factor", "peak_mb", "engine_mb", "build_seconds"]


class Row(TypedDict):
    """One composition of a sweep: what was asked for, what came of it, what was measured. Plain JSON.

    A number is None where nothing measured it: the composition failed, was not validated, or is for another machine.
    """

    composition: str  # tiny.en-int8-duplex_lowmem-paged-onnxruntime
    key: str | None
    directory: str | None
    overrides: list[str]  # "model=tiny.en", as Hydra gave them to the job
    command: str  # makes this composition alone
    status: Literal["passed", "missed", "failed"]
    exit_code: int
    error: str | None  # one line
    evidence: Literal["engine", "preflight", "graph"] | None
    wer: float | None  # percent
    reference_wer: float | None  # percent, of the float32 engine at 3000 frames on the same clips
    wer_increase: float | None  # percentage points
    token_agreement: float | None  # 0 to 1
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    real_time_factor: float | None
    peak_mb: float | None
    engine_mb: float | None
    build_seconds: float | None


@dataclass(frozen=True)
class Ranked:
    """A row in its place: front first, best WER first."""

    number: int  # from 1; the same in the plot, the page and the printed table
    label: str  # what sets it apart in this sweep
    on_front: bool
    row: Row

    @property
    def drawable(self) -> bool:
        """Whether it was measured in all three objectives."""
        return objectives(self.row) is not None


def number(row: Row, column: Numeric) -> float | None:
    """A number of a row, or None where it is missing or not finite."""
    value = row[column]
    return None if value is None or not math.isfinite(value) else float(value)


def objectives(row: Row) -> tuple[float, ...] | None:
    """(WER in percent, median latency in ms, peak memory in MB), or None if one of them is missing."""
    found = [number(row, cast(Numeric, column)) for column in OBJECTIVES]
    return None if None in found else tuple(cast("list[float]", found))


def front(rows: Sequence[Row]) -> list[bool]:
    """For each row, whether it is on the Pareto front."""
    points = [objectives(row) if row["status"] == "passed" else None for row in rows]
    rivals = [point for point in points if point is not None]
    return [point is not None and not any(dominates(rival, point) for rival in rivals) for point in points]


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def ranked(rows: Sequence[Row]) -> list[Ranked]:
    """The rows in order: the front, what else passed, what missed a gate, what failed; in each the best WER first.

    Rows that are equal are one composition, which a search came back to: one of them is kept.
    """
    rows = [row for index, row in enumerate(rows) if row not in rows[:index]]
    statuses = ("passed", "missed", "failed")

    def place(index: int) -> tuple[object, ...]:
        row = rows[index]
        numbers = [number(row, cast(Numeric, column)) for column in OBJECTIVES]
        known = [(value is None, value or 0.0) for value in numbers]
        return not members[index], statuses.index(row["status"]), known, row["composition"], row["overrides"], index

    members, names = front(rows), labels(rows)
    order = sorted(range(len(rows)), key=place)
    return [Ranked(place, names[index], members[index], rows[index]) for place, index in enumerate(order, start=1)]


def axes(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What varies over the sweep: {"model": [each row's value], ...}, in the order of the overrides."""
    given = [dict(_split(override) for override in row["overrides"]) for row in rows]
    keys = dict.fromkeys(key for overrides in given for key in overrides)
    values = {key: [overrides.get(key, "") for overrides in given] for key in keys}
    return {key: found for key, found in values.items() if len(set(found)) > 1}


def labels(rows: Sequence[Row]) -> list[str]:
    """Each row's values on the axes that vary; the composition's whole name where those do not tell rows apart."""
    varying = axes(rows)
    short = [" ".join(_value(key, values[index]) for key, values in varying.items() if values[index])
             for index in range(len(rows))]
    meant = {(label, row["composition"], *row["overrides"]) for label, row in zip(short, rows, strict=True)}
    plain = all(short) and len(meant) == len(set(short))
    return short if plain else [row["composition"] for row in rows]


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value.strip("'\"")


def _value(key: str, value: str) -> str:
    """A group's member speaks for itself; a field's value needs its name: `max_input_len=900`."""
    return f"{key.rpartition('.')[2]}={value}" if "." in key else value
