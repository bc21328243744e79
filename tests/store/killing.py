"""Run by test_kills.py in a process of its own: fifty runs that are killed at random moments."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

from tests.store.debug import composed, digests, mount, produce
from whisper_factory.schema import Composition
from whisper_factory.store import RECORD, trust

KILLS, LATER = 50, 10  # how many of those are followed by a run that is left alone


def kill_fifty(folder: str) -> None:
    """Print how many were killed, what they left, and how many of the runs after them gave other bytes."""
    base = Path(folder)
    mount("-t", "tmpfs", "tmpfs", base)  # the kernel keeps what a killed process has written: no disk is needed
    made = composed("validation=none")
    import onnx  # noqa: F401  what a run imports, so that it is the run that is killed and not its imports
    import onnxruntime  # noqa: F401

    store, expected = base / "store", base / "expected.json"
    took = min(_undisturbed(made, base / str(number), expected) for number in range(2))
    wanted = json.loads(expected.read_text())
    random.seed(5)
    killed, steps_seen, differing, later = 0, 0, 0, 0
    while killed < KILLS:
        process = _start(made, base)
        time.sleep(random.uniform(0, took))
        os.kill(process, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(process, 0)[1]):
            _empty(base)  # it was done before
            continue
        killed += 1
        for path in store.glob("[bcf]*/*"):
            record = json.loads((path / RECORD).read_text())
            assert trust.damage(path, record["outputs"]) == {}, path
            steps_seen += 1
        if killed % (KILLS // LATER) == 0:
            found = base / "found.json"
            assert os.waitpid(_start(made, base, found), 0)[1] == 0
            differing += json.loads(found.read_text()) != wanted
            later += 1
            assert not list((store / "tmp").iterdir())
            _empty(base)
    print(json.dumps({"killed": killed, "steps_seen": steps_seen, "later": later, "differing": differing}))


def _empty(base: Path) -> None:
    for folder in (base / "store", base / "outputs"):
        shutil.rmtree(folder)


def _undisturbed(made: Composition, folder: Path, report: Path) -> float:
    started = time.monotonic()
    assert os.waitpid(_start(made, folder, report), 0)[1] == 0
    return time.monotonic() - started


def _start(made: Composition, folder: Path, report: Path | None = None) -> int:
    """Fork a run of fetch, convert and build, which writes down its digests if it gets so far."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        outcome = produce(folder, made=made)
        if report:
            report.write_text(json.dumps(digests(outcome)))
        code = 0
    finally:
        os._exit(code)
