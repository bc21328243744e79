"""On the device: from a packed checkpoint to an engine directory, by two runs of trtllm-build."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from whisper_factory import command
from whisper_factory.backends.tensorrt_llm import machine, versions
from whisper_factory.backends.tensorrt_llm.commands import MEMORY_WORDS, PROGRAM, Options, build_commands, spelt, words
from whisper_factory.backends.tensorrt_llm.families import family
from whisper_factory.backends.tensorrt_llm.stamp import STAMP, read_stamp, verify
from whisper_factory.command import Finished
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError

VOCABULARY = "vocabulary.tiktoken"
REPORT = "build.json"
ENGINE_FILES = ("rank0.engine", "config.json")
MEMORY_REMEDY = ("stop what else uses memory (a text-to-speech server, a desktop), add swap, or build a smaller "
                 "engine: profile.max_batch_size, profile.max_beam_width, precision=int8 or int4, a smaller model")


def check_machine(packed: Path, asked: str, say: Callable[[str], None]) -> None:
    """Refuse a packed checkpoint that is not for the TensorRT-LLM and the GPU at hand.

    Args:
        packed: the directory with stamp.json.
        asked: the version that the engine is declared for.
        say: is told where the GPU cannot be looked at.

    Raises:
        UserError: they differ (names both sides), or a file of it is not the one that was packed.
        EnvironmentFault: TensorRT-LLM is not installed.
    """
    stamp, installed = read_stamp(packed), machine.toolkit()
    release = versions.parse(installed)
    for what, version in (("the checkpoint is", stamp["version"]), ("the engine is declared", asked)):
        if not versions.same(version, installed):
            raise UserError(f"{what} for TensorRT-LLM {version} (generation {versions.parse(version).generation}), "
                            f"installed is {installed} (generation {release.generation}); convert again with "
                            f"trtllm_version={installed}, or install {version}")
    wanted, found = stamp["compute_capability"], machine.compute_capability()
    if found is None:
        say(f"warning: neither torch nor nvidia-smi sees a GPU here: that it is of compute capability {wanted} is not "
            f"checked")
    elif wanted != found:
        raise UserError(f"the checkpoint is for compute capability {wanted} (packed layout {stamp['layout']}), this "
                        f"GPU has {found} (packed layout {family(found, release) or 'none'}); convert again with the "
                        f"device=... of this GPU, or device.compute_capability={found}")
    verify(packed, stamp)


def build_engine(packed: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], failures: Path) -> None:
    """See `whisper_factory.backends.tensorrt_llm.build`."""
    assert spec.target is not None
    check_machine(packed, spec.target.version, say)
    stages: dict[str, Any] = {}
    told = build_commands(spec, "checkpoint", "engine")  # as they stand in build.sh
    for stage, options in build_commands(spec, str(packed.absolute()), str(out.absolute())).items():
        say(f"{stage}: {PROGRAM}")
        done = _run(stage, options, out, say, failures)
        stages[stage] = {"command": words(told[stage]), "seconds": done.seconds, "peak_rss_bytes": done.peak_bytes}
        say(f"{stage}: built in {done.seconds:.0f} s, {done.peak_bytes / 1e6:.0f} MB of memory at peak")
    report = {"stages": stages, "versions": _versions()}
    (out / REPORT).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in (STAMP, VOCABULARY):
        shutil.copyfile(packed / name, out / name)
    spec.save(out)  # last: it makes the directory an engine


def _run(stage: str, options: Options, out: Path, say: Callable[[str], None], failures: Path) -> Finished:
    log = out / f"{stage}.log"
    with tempfile.TemporaryDirectory(dir=out) as scratch:  # trtllm-build leaves its timing cache where it runs
        done = command.run(words(options), log, lambda line: say(f"{stage}: {line}"), Path(scratch), MEMORY_WORDS)
    missing = [name for name in ENGINE_FILES if not (out / stage / name).is_file()]
    if done.trouble is None and not missing:
        return done
    kept, script = _leave_evidence(stage, options, log, failures)
    where = f"log: {kept}; again: bash {shlex.quote(str(script))}"
    if done.trouble is None:
        raise EnvironmentFault(f"{stage}: {PROGRAM} ended well but wrote no {' and no '.join(missing)}; {where}")
    raise EnvironmentFault(f"{_reason(stage, done)}; {where}")


def _reason(stage: str, done: Finished) -> str:
    last = " | ".join(done.last_lines)
    if done.trouble == "missing":
        return (f"{stage}: {PROGRAM} cannot be started ({last}); activate the environment in which tensorrt_llm is "
                f"installed, so that {PROGRAM} is on PATH")
    if done.trouble == "memory":
        return (f"{stage}: {PROGRAM} ran out of memory ({done.ending}), with {machine.free_memory()} free now that it "
                f"has ended, after {done.peak_bytes / 1e6:.0f} MB of its own at peak; {MEMORY_REMEDY}; its last lines: "
                f"{last}")
    return f"{stage}: {PROGRAM} failed ({done.ending}): {last}"


def _leave_evidence(stage: str, options: Options, log: Path, failures: Path) -> tuple[Path, Path]:
    """The log, and a script that runs the failed command again by itself, where they outlive the step."""
    failures.mkdir(parents=True, exist_ok=True)
    kept, script = failures / f"{stage}.log", failures / "reproduce.sh"
    shutil.copyfile(log, kept)
    places = {"--output_dir": str((failures / "reproduced" / stage).absolute())}
    again = [(name, places.get(name, value)) for name, value in options]
    script.write_text(script_of(again), encoding="utf-8")
    script.chmod(0o755)
    return kept, script


def script_of(options: Options) -> str:
    """A bash script of one trtllm-build command."""
    return f"#!/usr/bin/env bash\nset -euo pipefail\ncd -- \"$(dirname -- \"$0\")\"\n{spelt(options)}\n"


def _versions() -> dict[str, str]:
    found = {}
    for package in ("tensorrt_llm", "tensorrt", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
