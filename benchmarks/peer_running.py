"""How peers.py runs a system: what it is, what it hears, and one run of it in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_factory import clips

HERE = Path(__file__).resolve().parent
COLD_CLIP = clips.HERE / "sample.flac"  # 4.84 s
# Variables that would choose a library's kernels or threads for it, or have Python compile a checkout again each time.
TUNING = ("OPENBLAS_", "OMP_", "MKL_", "KMP_", "GOMP_", "CT2_", "GGML_", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class System:
    """Something that hears, and how it is run."""

    name: str
    worker: str  # of peer_worker.py, or whisper_cpp
    program: Path  # Python, or the compiled worker
    model: Path
    beams: int = 1
    batch: int = 1


@dataclass(frozen=True)
class Heard:
    """A clip that all systems hear: its samples in a file, its length, and what is said."""

    file: Path
    seconds: float
    text: str
    windows: tuple[tuple[float, float], ...] = ()  # of a long one


def environment() -> dict[str, str]:
    """This process's, without what TUNING has: as a user has it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [kept.get("PYTHONPATH")])])}


def hear(system: System, heard: list[Heard], language: str | None, threads: int, work: Path) -> dict[str, Any]:
    """Run a system once, in a fresh process; its report."""
    if system.worker == "whisper_cpp":
        return _hear_with_whisper_cpp(system, heard, threads, language or "en")
    job, out = work / "job.json", work / "out.json"
    job.write_text(json.dumps({
        "model": str(system.model), "threads": threads, "clips": [str(clip.file) for clip in heard],
        "beams": system.beams, "batch": system.batch, "language": language, "windows": heard[0].windows,
        "warm_up_seconds": 30 * max(2, system.batch), "started": time.monotonic()}), encoding="utf-8")
    command = [str(system.program), str(HERE / "peer_worker.py"), system.worker, str(job), str(out)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return report


def _hear_with_whisper_cpp(system: System, heard: list[Heard], threads: int, language: str) -> dict[str, Any]:
    command = [str(system.program), str(system.model), str(threads), language, *(str(clip.file) for clip in heard)]
    report: dict[str, Any] = {"clips": []}
    started = time.monotonic()
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "warm":
                report["up_s"] = time.monotonic() - started
            elif word == "load":
                report["load_s"] = float(rest)
            elif word == "resident":
                report["resident"] = 1024 * int(rest)
            else:
                first, _, text = rest.partition(" ")
                report["clips"].append({"seconds": float(word), "first_token_s": float(first), "text": text.strip()})
    if child.returncode or len(report["clips"]) != len(heard):
        sys.exit(f"{' '.join(command)} ended with {child.returncode} after {len(report['clips'])} clips")
    return report


def cold_start(engine: Path, threads: int) -> float:
    """Seconds from the start of `python -m whisper_factory.run` to the transcript of a clip of 5 s."""
    command = [sys.executable, "-m", "whisper_factory.run", "--engine_dir", str(engine), "--input_file", str(COLD_CLIP),
               "--threads", str(threads), "--log_level", "error"]
    started = time.monotonic()
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        if not child.stdout.readline():
            sys.exit(f"{' '.join(command)} printed nothing")
        return time.monotonic() - started
