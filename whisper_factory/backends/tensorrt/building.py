"""From the graphs to an engine directory: each stage compiled in a process of its own (compile.py)."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whisper_factory import command, store
from whisper_factory.backends.cuda import cudart
from whisper_factory.backends.tensorrt import flavours, shapes
from whisper_factory.backends.tensorrt.compile import FAILED
from whisper_factory.backends.tensorrt.files import ANCHOR, REPORT, STAGES, VOCABULARY
from whisper_factory.backends.tensorrt.flavours import RTX, Flavour
from whisper_factory.backends.tensorrt.limits import flavour_of, target_of
from whisper_factory.command import Finished
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError

# With this process's own search path: `-m` would put the working directory, and what lies there, in front.
CHILD = ("import sys; sys.path[:] = {path!r}; from whisper_factory.backends.tensorrt.compile import main; "
         "sys.exit(main(sys.argv[1:]))")
MEMORY_REMEDY = ("stop what else uses memory, add swap, or build a smaller engine: profile.max_batch_size, "
                 "profile.max_beam_width, precision=int8 or int4, a smaller model")
FORMAT = 1
PACKAGES = Path(__file__).parents[3]  # where whisper_factory lies, installed or not


def check_machine(spec: EngineSpec) -> tuple[Flavour, str]:
    """The flavour that builds an engine, and its version here.

    Raises:
        UserError: it builds on its device alone, and this is another.
        EnvironmentFault: it is not installed, or sees no GPU where it needs one.
    """
    flavour, target = flavour_of(spec), target_of(spec)
    version = flavours.need(flavour)
    if flavour is RTX:
        return flavour, version
    found = cudart.compute_capability()
    if found is None:
        raise EnvironmentFault(f"{flavour.title} builds on the device that the engine is for, and CUDA finds no GPU "
                               f"here; build on {target.device}")
    if found != target.compute_capability:
        raise UserError(f"{flavour.title} builds for the GPU at hand, of compute capability {found}; the engine is for "
                        f"{target.compute_capability} ({target.device}); build it there, or with the device=... of "
                        f"this GPU")
    return flavour, version


def build_engine(source: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], failures: Path,
                 caches: Path | None) -> None:
    """See `whisper_factory.backends.tensorrt.build`."""
    flavour, version = check_machine(spec)
    stages: dict[str, Any] = {}
    for stage, ranges in shapes.ranges(spec).items():
        say(f"{stage}: {flavour.title} {version}, for compute capability {target_of(spec).compute_capability}")
        job = _job(stage, flavour, spec, ranges, caches, version)
        told, done = _run(stage, job, source, out, failures, f"{flavour.title} {version}")
        size = (out / job["engine"]).stat().st_size
        stages[stage] = {**told, "engine_bytes": size, "peak_rss_bytes": done.peak_bytes, "shapes": ranges}
        say(f"{stage}: {told['layers']} layers, {_megabytes(told['weights_bytes'])} of weights, "
            f"{_megabytes(told['activation_bytes'])} of activations, built in {told['seconds']:.1f} s")
    report = {"format": FORMAT, "flavour": flavour.name, "version": version, "device": target_of(spec).device,
              "compute_capability": target_of(spec).compute_capability, "stages": stages}
    (out / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copyfile(source / VOCABULARY, out / VOCABULARY)
    spec.save(out)  # last: it makes the directory an engine


def _megabytes(count: int | None) -> str:
    return "an unknown amount" if count is None else f"{count / 1e6:.1f} MB"


def _job(stage: str, flavour: Flavour, spec: EngineSpec, ranges: dict[str, shapes.Range], caches: Path | None,
         version: str) -> dict[str, Any]:
    """A stage as compile.py takes it, its files by their names."""
    capability = target_of(spec).compute_capability
    cache = caches / "tensorrt" / f"{flavour.name}-{version}-{capability}.timing" if caches else None
    return {"onnx": f"{stage}.onnx", "engine": f"{stage}.engine", "report": f"{stage}.json", "flavour": flavour.name,
            "compute_capability": capability, "timing_cache": str(cache.absolute()) if cache else None,
            "shapes": ranges}


def _run(stage: str, job: dict[str, Any], source: Path, out: Path, failures: Path, tool: str
         ) -> tuple[dict[str, Any], Finished]:
    """Compile a stage; what the builder told, and how its process ended."""
    paper, report, log = out / f"{stage}.job", out / job["report"], out / f"{stage}.log"
    paper.write_text(json.dumps({**job, "onnx": str((source / job["onnx"]).absolute())}), encoding="utf-8")
    words = [sys.executable, "-c", CHILD.format(path=sys.path), str(paper)]
    done = command.run(words, log)  # what it prints is for the log alone
    told = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    paper.unlink()
    report.unlink(missing_ok=True)
    if done.trouble is None and "error" not in told and (out / job["engine"]).is_file():
        return told, done
    script = _leave_evidence(stage, job, source, log, failures)
    raise EnvironmentFault(f"{_reason(stage, tool, told, done)}; log: {failures / log.name}; again: bash "
                           f"{shlex.quote(str(script))}")


def _reason(stage: str, tool: str, told: dict[str, Any], done: Finished) -> str:
    if done.code == FAILED and "error" in told:
        node = f" at node '{told['node']}'" if told["node"] else ""
        operator = f" ({told['operator']})" if told["operator"] else ""
        return f"{stage}: {tool} failed{node}{operator}: {told['error'][:400]}"
    last = " | ".join(done.last_lines[-2:])[:400]
    if done.trouble == "memory":
        return (f"{stage}: {tool} ran out of memory ({done.ending}) after {done.peak_bytes / 1e6:.0f} MB of its own; "
                f"{MEMORY_REMEDY}; its last lines: {last}")
    return f"{stage}: {tool} failed ({done.ending}): {last}"


def _leave_evidence(stage: str, job: dict[str, Any], source: Path, log: Path, failures: Path) -> Path:
    """The log, the graph and its weights, and a script that compiles them again, where they outlive the step."""
    place = failures / stage
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(log, failures / log.name)
    for file in (f"{stage}.onnx", f"{stage}.weights", *([ANCHOR] if stage == STAGES[0] else [])):
        if (source / file).is_file():
            (place / file).unlink(missing_ok=True)
            store.link(source / file, place / file)
    (place / "job.json").write_text(json.dumps({**job, "timing_cache": None}, indent=1) + "\n", encoding="utf-8")
    script = place / "reproduce.sh"
    script.write_text(script_of(job), encoding="utf-8")
    script.chmod(0o755)
    return script


def script_of(job: dict[str, Any]) -> str:
    """A bash script that compiles the graph beside it again; and how NVIDIA's own program would."""
    program = "tensorrt_rtx" if job["flavour"] == RTX.name else "trtexec --stronglyTyped"
    ranges = [f"--{word}Shapes={','.join(_shape(name, given[index]) for name, given in job['shapes'].items())}"
              for index, word in enumerate(("min", "opt", "max"))]
    return ("#!/usr/bin/env bash\n"
            "# Compiles the graph beside this file. Without whisper_factory, NVIDIA's own program does much the same:\n"
            f"#   {program} --onnx={job['onnx']} {' '.join(ranges)}\n"
            "set -euo pipefail\n"
            'cd -- "$(dirname -- "${BASH_SOURCE[0]}")"\n'
            f'export PYTHONPATH={shlex.quote(str(PACKAGES))}"${{PYTHONPATH:+:$PYTHONPATH}}"\n'
            f'"${{PYTHON:-{sys.executable}}}" -m whisper_factory.backends.tensorrt.compile job.json\n')


def _shape(name: str, sizes: Any) -> str:
    return f"{name}:{'x'.join(map(str, sizes))}"
