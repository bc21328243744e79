"""validate: the engine on real speech, paired with the float32 reference at 3000 frames on the same clips.

Writes validation.json: what was measured, each gate with its limit and value, and whether all passed. A missed
gate is not an error of this step: the engine and the evidence stay, and the command exits with 3.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from whisper_factory import backends
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.steps import keep, listening
from whisper_factory.steps.audition import Audition
from whisper_factory.steps.context import Context
from whisper_factory.steps.reference import TRANSCRIPTS

if TYPE_CHECKING:
    from whisper_factory.planned_steps import PlannedStep

VERSION = 4
REPORT = "validation.json"
EDGE_REMEDY = ("a short window breaks here first; profile.end_anchor=50 protects it, and profile.margin_frames, "
               "100 for max_input_len=750, 850 for 1500")

Row = dict[str, Any]


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write validation.json into `out`."""
    params, scratch = step.params, out / "scratch"
    engine = _stand_in(params, inputs, scratch, context) if "stand_in" in params else inputs["build"]
    requests = _requests(step)
    reference = json.loads((inputs["reference"] / TRANSCRIPTS).read_text(encoding="utf-8"))
    with context.audition or Audition(engine, requests, out / "asked") as audition:
        report = audition.report(params["repeats"], context.progress)
    shutil.rmtree(scratch, ignore_errors=True)
    rows = [_row(*triple) for triple in zip(requests, report["clips"], reference, strict=True)]
    summary = summarise(rows, report)
    gates = judge(summary, params["gates"])
    result = {
        # engine: what was measured is the engine itself. Else what stood for it on this CPU: graph, the graphs that it
        # was built from; preflight, its weights.
        "evidence": params.get("evidence", "engine"),
        "name": params["name"],
        "passed": all(gate["passed"] for gate in gates),
        "gates": gates,
        "summary": summary,
        "clips": rows,
    }
    (out / REPORT).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def begin(step: PlannedStep, engine: Path, scratch: Path) -> Audition:
    """Have the engine heard from now on, beside other work, for a run of this step that is to come.

    Args:
        scratch: a directory that is not there, for as long as it takes.
    """
    return Audition(engine, _requests(step), scratch, beside=True)


def _requests(step: PlannedStep) -> list[Row]:
    params = step.params
    return listening.clip_requests(step.hints["clips"], params["max_input_len"], params["short_window"])


def _stand_in(params: dict[str, Any], inputs: dict[str, Path], scratch: Path, context: Context) -> Path:
    kit = backends.kit(params["backend"])
    assert kit is not None
    spec = keep.settled(EngineSpec.from_dict(params["stand_in"]), inputs)
    return kit.stand_in(inputs["pack"], spec, scratch, context.say, context.failures, context.progress)


def _row(request: Row, heard: Row, reference: Row) -> Row:
    from whisper_factory.whisper.normalize import edit_distance, words

    said = words(request["text"])
    return {
        "name": request["name"],
        "edge": request["edge"],
        "text": request["text"],
        "heard": heard["text"],
        "reference": reference["text"],
        "seconds": heard["seconds"],
        "windows": heard["windows"],
        "latency_ms": None if request["edge"] else round(1000 * heard["latency_s"], 1),
        "words": len(said),
        "word_errors": edit_distance(said, words(heard["text"])),
        "reference_word_errors": edit_distance(said, words(reference["text"])),
        "tokens": max(len(heard["tokens"]), len(reference["tokens"])),
        "token_differences": edit_distance(reference["tokens"], heard["tokens"]),
        "runaway": heard["runaway"],
        "circles": heard["circles"],
        "reference_runaway": reference["runaway"],
        "warnings": heard["warnings"],
    }


def summarise(rows: list[Row], report: Row) -> Row:
    """The numbers of a validation, from its rows and the measuring process's totals.

    WER and its reference are in percent, over all clips; `token_agreement` is 1 - edits/tokens over the clips that fit
    in one window, `cut_token_agreement` over those that were cut into several, where
    edits are token insertions, deletions and substitutions against the reference and tokens counts, per clip, the
    longer of the two; `edge` rows are recordings whose words run to the end of what the engine accepts. A clip on
    which the reference itself ran away is no yardstick: it counts in neither agreement nor wer_increase.
    """
    plain = [row for row in rows if not row["edge"]]
    edge = [row for row in rows if row["edge"]]
    fair = [row for row in plain if not row["reference_runaway"]]
    whole = [row for row in fair if row["windows"] == 1]
    seconds = sum(row["seconds"] for row in plain)
    busy = sum(row["latency_ms"] for row in plain) / 1000
    return {
        "clips": len(plain),
        "wer": _percent(plain, "word_errors"),
        "reference_wer": _percent(plain, "reference_word_errors"),
        "token_agreement": _agreement(whole),
        "wer_increase": round(_percent(fair, "word_errors") - _percent(fair, "reference_word_errors"), 2),
        "edge_clips": len(edge),
        "edge_wer": _percent(edge, "word_errors"),
        "edge_reference_wer": _percent(edge, "reference_word_errors"),
        "edge_token_agreement": _agreement(row for row in edge if not row["reference_runaway"]),
        "cut_clips": sum(row["windows"] > 1 for row in plain),
        "cut_token_agreement": _agreement(row for row in fair if row["windows"] > 1),
        "runaways": sum(row["runaway"] for row in rows),
        "reference_runaways": sum(row["reference_runaway"] for row in rows),
        "circles": sum(row["circles"] for row in rows),
        "latency_ms_mean": round(1000 * busy / len(plain), 1),
        "latency_ms_median": round(median(row["latency_ms"] for row in plain), 1),
        "latency_ms_max": max(row["latency_ms"] for row in plain),
        "real_time_factor": round(busy / seconds, 4),
        "load_ms": round(1000 * report["load_s"], 1),
        "peak_rss_mb": round(report["peak_rss_bytes"] / 1e6, 1),
        "baseline_rss_mb": round(report["baseline_rss_bytes"] / 1e6, 1),
        "threads": report["threads"],
        "versions": report["versions"],
    }


def judge(summary: Row, limits: dict[str, float | None]) -> list[Row]:
    """Each configured gate with its value and verdict. A limit of None is no gate."""
    runs = [("token_agreement", "min_token_agreement", summary["token_agreement"], True)]
    if summary["edge_clips"]:
        runs.append(("edge_token_agreement", "min_edge_token_agreement", summary["edge_token_agreement"], True))
    runs += [
        ("runaways", "max_runaways", summary["runaways"], False),
        ("wer_increase", "max_wer_increase", summary["wer_increase"], False),
        ("latency_ms_mean", "max_latency_ms", summary["latency_ms_mean"], False),
        ("peak_rss_mb", "max_peak_mb", summary["peak_rss_mb"], False),
    ]
    gates = []
    for name, key, value, at_least in runs:
        limit = limits.get(key)
        if limit is not None:
            passed = value >= limit if at_least else value <= limit
            gates.append({"name": name, "limit": limit, "value": value, "passed": passed})
    return gates


def missed(report: Row) -> str:
    """The missed gates of a validation.json, in words."""
    lines = []
    for gate in report["gates"]:
        if not gate["passed"]:
            bound = "at least" if gate["name"].endswith("agreement") else "at most"
            remedy = f" ({EDGE_REMEDY})" if gate["name"].startswith("edge") else ""
            lines.append(f"{gate['name']} is {gate['value']}, wanted {bound} {gate['limit']}{remedy}")
    return "; ".join(lines)


def _percent(rows: Iterable[Row], errors: str) -> float:
    counted = list(rows)
    wrong, said = (sum(int(row[column]) for row in counted) for column in (errors, "words"))
    return round(100 * wrong / max(1, said), 2)


def _agreement(rows: Iterable[Row]) -> float:
    counted = list(rows)
    different, tokens = (sum(int(row[column]) for row in counted) for column in ("token_differences", "tokens"))
    return round(1 - different / max(1, tokens), 4)
