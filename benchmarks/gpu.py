"""Our engines on an NVIDIA GPU: what they hear, how fast, in how much memory, beside transformers and openai-whisper.

    python benchmarks/gpu_payload.py PAYLOAD            (on any machine with the weights)
    python benchmarks/gpu.py PAYLOAD OUT [POINT ...]    (on the GPU's; points: see POINTS)

Every measurement is a process of its own with a time limit, and leaves OUT/all.json as far as it has come; one that
fails leaves the end of what it said. Needs the package with its [cuda] extra, torch, transformers and Triton.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from whisper_factory.backends.onnxruntime_cuda import machine

HERE = Path(__file__).parent
PRECISIONS, MODELS, BATCHES = ("float16", "int8", "int4"), ("tiny.en", "base"), (1, 8, 32)
PEERS = ("transformers", "transformers-static", "transformers-compiled", "openai-whisper")
PACKAGES = ("onnxruntime-gpu", "numpy", "torch", "transformers", "triton", "onnx")
SHORT = {"profile": "duplex_lowmem"}
LONG = {"profile": "batch", "changes": {"max_beam_width": 1}}
TOLD = 1500  # characters of what a failure said
Task = tuple[str, str, dict[str, Any], int]  # script and kind, name, job, seconds


def accuracy(provider: str) -> Iterator[Task]:
    """Point 1, on the CPU and on the GPU."""
    for model in MODELS:
        for precision in PRECISIONS:
            for window, shape in (("short", SHORT), ("30s", LONG)):
                job = {"model": model, "precision": precision, "provider": provider, "threads": 2, **shape}
                yield "gpu_worker accuracy", f"accuracy/{model}/{precision}/{window}/{provider}", job, 400


def latency() -> Iterator[Task]:
    """Point 2."""
    for model in MODELS:
        for precision in PRECISIONS:
            job = {"model": model, "precision": precision, "provider": "cuda", **SHORT}
            yield "gpu_worker latency", f"latency/{model}/{precision}", job, 120
            yield "gpu_worker latency", f"latency/{model}/{precision}-as-peers", {**job, "clips": 60}, 120
        for system in PEERS:
            job = {"model": model, "system": system, "clips": 60, "rounds": 3}
            yield "gpu_peers latency", f"latency/{model}/{system}", job, 200


def throughput() -> Iterator[Task]:
    """Point 3: 30 minutes as recordings of 30 s in windows of 30 s, and as clips of up to 7.5 s in short windows."""
    for batch in BATCHES:
        for precision in ("float16", "int8"):
            for window, each, shape in (("30s", 30, {"padding_strategy": "max"}),
                                        ("clips", 7.5, {"padding_strategy": "max"}),
                                        ("clips-short", 7.5, {"max_input_len": 750, "margin_frames": 100})):
                changes = {"max_batch_size": batch, "max_beam_width": 1, **shape}
                job = {"model": "tiny.en", "precision": precision, "provider": "cuda", "profile": "batch",
                       "changes": changes, "minutes": 30, "each": each}
                yield "gpu_worker throughput", f"throughput/{window}/{batch}/{precision}", job, 150
        for system in ("transformers", "transformers-static", "openai-whisper"):
            for window, each in (("30s", 30), ("clips", 7.5)):
                job = {"model": "tiny.en", "system": system, "batch": batch, "minutes": 30 if batch > 1 else 10,
                       "each": each}
                yield "gpu_peers throughput", f"throughput/{window}/{batch}/{system}", job, 150


def limits() -> Iterator[Task]:
    """Point 4."""
    yield "gpu_limits bandwidth", "limits/bandwidth", {}, 60
    for model in MODELS:
        for precision in PRECISIONS:
            for batch in (1, 32):
                changes = {"max_batch_size": batch, "max_beam_width": 1}
                job = {"model": model, "precision": precision, "provider": "cuda", "profile": "duplex_lowmem",
                       "changes": changes, "seconds": 6.0}
                for graphs in (True, False) if model == "tiny.en" else (True,):
                    name = f"limits/steps/{model}/{precision}/{batch}/{'graphs' if graphs else 'plain'}"
                    yield "gpu_limits steps", name, {**job, "graphs": graphs}, 90
                if model == "tiny.en":
                    yield "gpu_limits kernels", f"limits/kernels/{precision}/{batch}", {**job, "graphs": True}, 90


def memory() -> Iterator[Task]:
    """Point 5."""
    for model in MODELS:
        for precision in PRECISIONS if model == "tiny.en" else ("int8",):
            for profile in ("duplex_lowmem", "interactive", "batch"):
                job = {"model": model, "precision": precision, "provider": "cuda", "profile": profile}
                yield "gpu_worker memory", f"memory/{model}/{precision}/{profile}", job, 120


def integers() -> Iterator[Task]:
    """Point 6."""
    job = {"model": "tiny.en", "precision": "int8", "provider": "cuda", **SHORT}
    yield "gpu_integers integers", "integers", job, 120


POINTS = {"accuracy": lambda: accuracy("cuda"), "latency": latency, "throughput": throughput, "limits": limits,
          "memory": memory, "integers": integers}


class Run:
    """Where measurements leave what they found."""

    def __init__(self, payload: Path, out: Path, only: str) -> None:
        self.payload, self.out, self.only = payload.resolve(), out, only
        self.work = Path(os.environ.get("GPU_WORK") or Path(tempfile.gettempdir()) / "gpu_work")
        self.found: dict[str, Any] = {}
        for folder in (out, self.work / "jobs"):
            folder.mkdir(parents=True, exist_ok=True)

    def do(self, task: Task) -> None:
        """One measurement."""
        (script, kind), name, job, seconds = task[0].split(), *task[1:]
        if self.only not in name:
            return
        asked = self.work / "jobs" / f"{name.replace('/', '-')}.json"
        told = asked.with_suffix(".out")
        asked.write_text(json.dumps({"payload": str(self.payload), "work": str(self.work), **job}), encoding="utf-8")
        command = [sys.executable, str(HERE / f"{script}.py"), kind, str(asked), str(told)]
        start = time.monotonic()
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
            said = (ran.stdout + ran.stderr)[-TOLD:]
            result = json.loads(told.read_text(encoding="utf-8")) if ran.returncode == 0 else {"failed": said}
        except subprocess.TimeoutExpired:
            result = {"failed": f"took longer than {seconds} s"}
        self.found[name] = {**result, "process_s": round(time.monotonic() - start, 1)}
        brief = {key: value for key, value in result.items() if isinstance(value, int | float | str)}
        print(f"{name}: {self.found[name]['process_s']} s {str(brief)[:400]}", flush=True)
        (self.out / "all.json").write_text(json.dumps(self.found), encoding="utf-8")


def about() -> dict[str, Any]:
    """The card and the versions."""
    found = machine.gpu()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"gpu": found._asdict() if found else None, "versions": versions, "cpus": os.cpu_count()}


def main() -> None:
    """Run the points that were asked for, or all."""
    flags = argparse.ArgumentParser(description="Measure our engines on a GPU.")
    flags.add_argument("payload", type=Path)
    flags.add_argument("out", type=Path)
    flags.add_argument("points", nargs="*", default=[], help=f"of {', '.join(POINTS)}; default: all")
    flags.add_argument("--only", default="", help="measurements whose name has this in it")
    wanted = flags.parse_args()
    run = Run(wanted.payload, wanted.out, wanted.only)
    run.found["about"] = about()
    print(run.found["about"], flush=True)
    points = wanted.points or list(POINTS)
    for point in points:
        if point == "accuracy":  # the CPU's engines hear at the same time: nothing is timed
            with ThreadPoolExecutor(6) as pool:
                waiting = [pool.submit(run.do, task) for task in accuracy("cpu")]
                for task in accuracy("cuda"):
                    run.do(task)
                for one in waiting:
                    one.result()
            continue
        for task in POINTS[point]():
            run.do(task)


if __name__ == "__main__":
    main()
