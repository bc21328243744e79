"""Our engines on an NVIDIA GPU: what they hear, how fast, in how much memory, beside transformers and openai-whisper.

    python benchmarks/gpu_payload.py PAYLOAD            (on any machine with the weights)
    python benchmarks/gpu.py PAYLOAD OUT [POINT ...]    (on the GPU's; points: see gpu_points.py)
    python benchmarks/gpu_report.py PAYLOAD OUT/all.json

Every measurement is a process of its own with a time limit, and leaves OUT/all.json as far as it has come; one that
fails leaves the end of what it said. What OUT/all.json has already is not measured again, but for what failed, so a run
that was cut goes on where it was: `--minutes 9`, say, ends it in time, and nothing is kept of what it cuts off. Needs
onnxruntime-gpu, onnx, torch, transformers and Triton; what else the package needs, the payload can have (--site).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from gpu_points import POINTS, TIMED, UNTIMED, Task, accuracy  # noqa: E402

from whisper_factory.backends.onnxruntime_cuda import machine  # noqa: E402

PACKAGES = ("onnxruntime-gpu", "numpy", "torch", "transformers", "triton", "onnx")
ABOUT, EARLIER, FAILED = "about", "earlier", "failed"  # keys: of this run, of those before it, of what failed
TOLD = 1500  # characters of what a failure said
LEAST = 5  # seconds: with less left, nothing is begun
ASIDE = max(1, (os.cpu_count() or 2) // 2 - 1)  # of the CPU's engines, two threads each, while the GPU is at work


class Run:
    """Where measurements leave what they found."""

    def __init__(self, payload: Path, out: Path, only: str = "", minutes: float = 1e6, scripts: Path = HERE) -> None:
        self.payload, self.out, self.only, self.scripts = payload.resolve(), out, only, scripts
        self.end = time.monotonic() + 60 * minutes
        self.work = Path(os.environ.get("GPU_WORK") or Path(tempfile.gettempdir()) / "gpu_work")
        for folder in (out, self.work / "jobs"):
            folder.mkdir(parents=True, exist_ok=True)
        self.file, self.writing = out / "all.json", threading.Lock()
        self.found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        self.cut: list[str] = []

    def begin(self, about: dict[str, Any]) -> None:
        """Say what machine this is."""
        if ABOUT in self.found:
            self.found[EARLIER] = [*self.found.get(EARLIER, []), self.found[ABOUT]]
        self.found[ABOUT] = about

    def left(self, tasks: Iterable[Task]) -> list[Task]:
        """Those that were asked for and are not done."""
        return [task for task in tasks if self.only in task.name
                and (task.name not in self.found or FAILED in self.found[task.name])]

    def do(self, task: Task) -> None:
        """One measurement. Nothing is kept of one that the end of the run cut off."""
        start = time.monotonic()
        seconds = min(task.seconds, self.end - start)
        if seconds < LEAST:
            self.cut.append(task.name)
            return
        result = self._measured(task, seconds)
        if result is None and seconds < task.seconds:
            self.cut.append(task.name)
            return
        result = result or {FAILED: f"took longer than {task.seconds} s"}
        took = round(time.monotonic() - start, 1)
        brief = {key: value for key, value in result.items() if isinstance(value, int | float | str)}
        print(f"{task.name}: {took} s {str(brief)[:400]}", flush=True)
        with self.writing:
            self.found[task.name] = {**result, "process_s": took, "run": self.found[ABOUT]["started"]}
            whole = self.file.with_suffix(".new")
            whole.write_text(json.dumps(self.found), encoding="utf-8")
            whole.replace(self.file)

    def _measured(self, task: Task, seconds: float) -> dict[str, Any] | None:
        """What a measurement left; None if it took too long."""
        asked = self.work / "jobs" / f"{task.name.replace('/', '-')}.json"
        told = asked.with_suffix(".out")
        job = {"payload": str(self.payload), "work": str(self.work), **task.job}
        asked.write_text(json.dumps(job), encoding="utf-8")
        places = (str(HERE.parent), os.environ.get("PYTHONPATH", ""), str(self.payload / "site"))
        words = [sys.executable, str(self.scripts / f"{task.script}.py"), task.kind, str(asked), str(told)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env={**os.environ, "PYTHONPATH": ":".join(filter(None, places))},
                              start_new_session=True) as process:
            try:
                said, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
                return None
        if process.returncode:
            return {FAILED: said[-TOLD:] or f"exit code {process.returncode}"}
        result: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        return result


def about() -> dict[str, Any]:
    """The card, the versions, and when."""
    found = machine.gpu()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "gpu": found._asdict() if found else None,
            "versions": versions, "cpus": os.cpu_count()}


def measure(run: Run, points: list[str]) -> None:
    """All measurements of these points: what is not timed while the CPU's engines hear, then what is."""
    with ThreadPoolExecutor(ASIDE) as pool:
        aside = [pool.submit(run.do, task) for task in run.left(accuracy("cpu"))] if "accuracy" in points else []
        for point in (point for point in UNTIMED if point in points):
            for task in run.left(UNTIMED[point]()):
                run.do(task)
        for one in aside:
            one.result()
    for point in (point for point in TIMED if point in points):
        for task in run.left(TIMED[point]()):
            run.do(task)


def main() -> int:
    """Run the points that were asked for, or all; 1 if something failed or was cut."""
    flags = argparse.ArgumentParser(description="Measure our engines on a GPU.")
    flags.add_argument("payload", type=Path)
    flags.add_argument("out", type=Path)
    flags.add_argument("points", nargs="*", default=[], help=f"of {', '.join(POINTS)}; default: all")
    flags.add_argument("--only", default="", help="measurements whose name has this in it")
    flags.add_argument("--minutes", type=float, default=1e6, help="end after so many")
    flags.add_argument("--dry", action="store_true", help="say what would be measured, and measure nothing")
    wanted = flags.parse_args()
    if unknown := set(wanted.points) - set(POINTS):
        flags.error(f"no point {', '.join(sorted(unknown))}; choices: {', '.join(POINTS)}")
    run, points = Run(wanted.payload, wanted.out, wanted.only, wanted.minutes), wanted.points or list(POINTS)
    if wanted.dry:
        tasks = [task for point in points for task in POINTS[point]()]
        for task in run.left([*tasks, *(accuracy("cpu") if "accuracy" in points else ())]):
            print(f"{task.name}: at most {task.seconds} s")
        return 0
    run.begin(about())
    print(run.found[ABOUT], flush=True)
    measure(run, points)
    failed = [name for name, one in run.found.items() if isinstance(one, dict) and FAILED in one]
    for words, names in (("failed", failed), ("cut off, the same command goes on with them", run.cut)):
        if names:
            print(f"{len(names)} {words}: {', '.join(names)}", flush=True)
    return 1 if failed or run.cut else 0


if __name__ == "__main__":
    sys.exit(main())
