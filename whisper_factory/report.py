"""What a run prints on standard output: the plan of a dry run, the result of a real one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_factory import backends, clips, memory, outputs
from whisper_factory.factory import Outcome
from whisper_factory.memory import Part
from whisper_factory.plan import Plan
from whisper_factory.steps import keep

EVIDENCE = {"preflight": "the packed weights on this CPU, in float32",
            "graph": "the very graphs that are compiled, run on this CPU by ONNX Runtime"}


def plan_table(outcome: Outcome) -> str:
    """Each step: its key, cached or to do, the inputs it needs, what it does."""
    plan = outcome.plan
    lines = [f"{plan.composition.name} ({plan.key[:12]})", f"  into {plan.directory}", ""]
    for step in plan.steps:
        state = "cached" if step.name in outcome.finished else "to do"
        needs = ", ".join(f"{name} {key[:12]}" for name, key in step.inputs.items())
        lines.append(f"{step.name:<9} {step.key[:12]}  {state:<6}  {step.about}")
        if needs:
            lines.append(f"{'':<9} {'':<12}  {'':<6}  needs {needs}")
    lines += ["", "memory", *(f"  {line}" for line in memory.table(outcome.memory, outcome.device))]
    lines += [f"note      {note}" for note in plan.notes]
    lines += ["", "inputs"]
    for name, parts in plan.source.files.items():
        lines += [f"  {name}: {part.origin} (sha256 {part.sha256[:12]})" for part in parts]
    vocabulary = plan.source.vocabulary
    lines.append(f"  vocabulary {vocabulary.name} (sha256 {vocabulary.sha256[:12]})")
    return "\n".join(lines)


def comparison(outcomes: Sequence[Outcome]) -> str:
    """One table of several planned compositions: what each takes, and its KV caches against the largest's.

    A slot is the self-attention KV of one sequence: batch times beams of them are held.
    """
    specs = [outcome.plan.spec for outcome in outcomes]
    kv = [_kv(outcome.memory.parts) for outcome in outcomes]
    turns = [_kv(memory.at_turns(spec)) for spec in specs]
    most_slots, most_kv = max(spec.max_rows for spec in specs), max(*kv, 1)
    rows = [("composition", "KV slots", "fewer", "KV", "less", "KV at 10 s turns", "load", "peak")]
    for spec, outcome, held, turn in zip(specs, outcomes, kv, turns, strict=True):
        rows.append((outcome.plan.composition.name, str(spec.max_rows), _less(spec.max_rows, most_slots),
                     f"{held / memory.MB:.1f} MB", _less(held, most_kv), f"{turn / memory.MB:.1f} MB",
                     f"{outcome.memory.load / memory.MB:.0f} MB", f"{outcome.memory.peak / memory.MB:.0f} MB"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) if column else cell.ljust(width)
                               for column, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows)


def _kv(parts: Sequence[Part]) -> int:
    """Bytes of both KV caches at the highest."""
    return sum(part.peak for part in parts if part.name in (memory.SELF_KV, memory.CROSS_KV))


def _less(part: int, whole: int) -> str:
    return "" if part == whole else f"-{100 * (1 - part / whole):.1f} %"


def result(outcome: Outcome) -> str:
    """The transcript of the sample, the numbers of the validation, the engine's size, and where it is."""
    lines = []
    if outcome.validation:
        lines += _validation(outcome.validation, on_gpu=_on_gpu(outcome.plan))
    if "keep" in outcome.finished:
        first, *rest = keep.told(keep.read(outcome.finished["keep"].path), outcome.plan.spec.dimensions)
        lines += [f"kept        {first}", *(f"{'':<12}{line}" for line in rest)]
    if "build" in outcome.finished:
        megabytes = sum(about["bytes"] for about in outcome.finished["build"].record["outputs"].values()) / 1e6
        lines.append(f"engine      {megabytes:.1f} MB")
    lines.append(f"directory   {outcome.plan.directory}")
    if "kit" in outcome.finished and "build" not in outcome.finished:
        lines += _kit(outcome.plan)
    if "build" in outcome.finished:
        sample = _from_here(clips.bundled("quick")[0].path)
        words = ("--engine_dir", str(outcome.plan.directory), "--input_file", str(sample))
        command = f"python -m whisper_factory.run {shlex.join(words)}"
        lines.append(f"try it      {command}" if _runs_here(outcome.plan) else f"on {_device(outcome.plan)}: {command}")
    return "\n".join(lines)


def _from_here(path: Path) -> Path:
    """A path as short as one would type it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _runs_here(plan: Plan) -> bool:
    kit = backends.kit(plan.spec.backend)
    return kit is None or kit.runs_here(plan.spec)


def _device(plan: Plan) -> str:
    return plan.spec.target.device if plan.spec.target else plan.composition.device.name


def _kit(plan: Plan) -> list[str]:
    """What to do with a kit."""
    target, kit = plan.spec.target, plan.directory / outputs.KIT
    assert target is not None
    return [f"kit         {kit} ({kit.stat().st_size / 1e6:.1f} MB)",
            f"next        copy it to {target.device} ({plan.spec.backend} {target.version}), then there: "
            f"tar xf {outputs.KIT} && bash kit/build.sh"]


def _on_gpu(plan: Plan) -> bool:
    return plan.spec.target is not None or backends.on_device(plan.spec.backend) is not None


def _validation(report: dict[str, Any], on_gpu: bool) -> list[str]:
    summary, first = report["summary"], report["clips"][0]
    lines = [
        f"sample      {first['heard']}",
        f"WER         {summary['wer']:.2f} % over {summary['clips']} clips "
        f"(float32 at 3000 frames: {summary['reference_wer']:.2f} %)",
        f"tokens      {100 * summary['token_agreement']:.2f} % as the float32 engine's",
    ]
    if summary["edge_clips"]:
        lines.append(f"edge        {100 * summary['edge_token_agreement']:.2f} % over {summary['edge_clips']} "
                     "recordings of the full length")
    if report["evidence"] == "engine":
        lines += [
            f"latency     {summary['latency_ms_mean']:.0f} ms a clip, real-time factor "
            f"{summary['real_time_factor']:.3f} ({summary['threads']} threads), load {summary['load_ms']:.0f} ms",
            f"memory      {summary['peak_rss_mb']:.0f} MB at peak, of which {summary['baseline_rss_mb']:.0f} MB is "
            f"Python and its libraries{'; what lies on the GPU is not in it' if on_gpu else ''}",
        ]
    else:
        lines.append(f"evidence    {report['evidence']}: {EVIDENCE[report['evidence']]}; latency and memory are the "
                     "device's to tell")
    if summary["runaways"]:
        lines.append(f"runaways    {summary['runaways']}")
    if summary["circles"]:
        lines.append(f"circles     {summary['circles']} without an end, after whose first round it heard on")
    verdicts = [f"{gate['name']} {'passed' if gate['passed'] else 'MISSED'}" for gate in report["gates"]]
    lines.append(f"gates       {', '.join(verdicts) or 'none configured'} (validation={report['name']})")
    return lines

