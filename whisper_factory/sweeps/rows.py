"""One row a composition: written by the job that made it, read by the process that started the sweep."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.errors import EnvironmentFault
from whisper_factory.sweeps.front import Row

if TYPE_CHECKING:
    from whisper_factory.factory import Outcome

BUILDING = ("keep", "convert", "pack", "kit", "build")  # the steps whose time is a composition's build time
UNFINISHED = "its job did not end: it was killed, or its host was lost, or it is still at work"
NOT_OF_ONE = ("quiet", "dry_run", "objectives", "hydra")  # settings of a sweep that its compositions are made without


def failed(name: str, overrides: Sequence[str], error: str, exit_code: int) -> Row:
    """The row of a composition that came to nothing."""
    return {**_blank(name, overrides), "status": "failed", "error": error, "exit_code": exit_code}  # type: ignore[typeddict-item]


def begun(name: str, overrides: Sequence[str]) -> Row:
    """The row of a composition until its job has written another one: a job that is killed says nothing more."""
    return failed(name, overrides, UNFINISHED, EnvironmentFault.exit_code)


def made(outcome: Outcome, overrides: Sequence[str], missed: str | None = None) -> Row:
    """The row of a composition that was made.

    Args:
        missed: what is said of the gates it missed, if it did.
    """
    steps = {name: step.record for name, step in outcome.finished.items()}
    row: dict[str, Any] = _blank(outcome.plan.composition.name, overrides)
    row |= {"key": outcome.plan.key, "directory": str(outcome.plan.directory)}
    row |= {"status": "missed" if missed else "passed", "error": missed, "exit_code": 3 if missed else 0}
    row["build_seconds"] = round(sum(steps[name]["seconds"] for name in BUILDING if name in steps), 3)
    if "build" in steps:
        row["engine_mb"] = round(sum(about["bytes"] for about in steps["build"]["outputs"].values()) / 1e6, 2)
    if outcome.validation:
        row |= _measured(outcome.validation)
    return row  # type: ignore[return-value]


def _measured(report: dict[str, Any]) -> dict[str, Any]:
    """What a validation.json says. Latency and memory are an engine's to tell, no preflight's."""
    summary = report["summary"]
    row = {"evidence": report["evidence"],
           **{name: summary[name] for name in ("wer", "reference_wer", "wer_increase", "token_agreement")}}
    if report["evidence"] == "engine":
        latencies = sorted(clip["latency_ms"] for clip in report["clips"] if not clip["edge"])
        row |= {"latency_ms_p50": percentile(latencies, 50), "latency_ms_p95": percentile(latencies, 95),
                "real_time_factor": summary["real_time_factor"], "peak_mb": summary["peak_rss_mb"]}
    return row


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest of the values that is not below `percent` of them."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def _blank(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    said = [word for word in overrides if word.lstrip("+~").partition("=")[0].partition(".")[0] not in NOT_OF_ONE]
    numbers = ("wer", "reference_wer", "wer_increase", "token_agreement", "latency_ms_p50", "latency_ms_p95",
               "real_time_factor", "peak_mb", "engine_mb", "build_seconds")
    return {"composition": name, "key": None, "directory": None, "overrides": said,
            "command": shlex.join(["python", "-m", "whisper_factory", *said]), "evidence": None,
            **dict.fromkeys(numbers)}


def write(directory: Path, number: int, row: Row) -> None:
    """Leave a job's row where the sweep will look for it."""
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f".{number:05d}.{os.getpid()}"
    fresh.write_text(json.dumps(row), encoding="utf-8")
    os.replace(fresh, directory / f"{number:05d}.json")


def read(directory: Path) -> list[Row]:
    """The rows that jobs left, in the order of the jobs."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("[0-9]*.json"))]
