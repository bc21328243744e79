"""How a GPU is measured, without one: what is run, what is kept, and how a run that was cut goes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gpu
import gpu_points
import pytest
from gpu_points import Task

from tests import processes

# Stands for a measurement: KIND JOB.json OUT.json.
SCRIPT = """
import json, os, pathlib, subprocess, sys, time
kind, asked, told = sys.argv[1:]
job = json.loads(open(asked).read())
with open(job["log"], "a") as log:
    log.write(job["name"] + "\\n")
if kind == "fails":
    sys.exit("no memory left")
if kind == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
open(told, "w").write(json.dumps({"value": 7, "path": os.environ["PYTHONPATH"].split(":")}))
"""


class Hanging(subprocess.Popen[str]):
    """A measurement whose time is up as soon as it hangs; as the clock tells from then on."""

    now: ClassVar[float] = 0.0
    child: ClassVar[int] = 0

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        assert timeout is not None
        assert self.stdout is not None
        if "hangs" in list(map(str, self.args)):  # type: ignore[call-overload]
            Hanging.child = int(self.stdout.readline())
            Hanging.now += timeout
            raise subprocess.TimeoutExpired(self.args, timeout)
        return super().communicate(input, timeout)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a run whose measurements are SCRIPT."""
    monkeypatch.setenv("GPU_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(gpu.subprocess, "Popen", Hanging)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: Hanging.now))
    (tmp_path / "fake.py").write_text(SCRIPT, encoding="utf-8")

    def make(**changes: Any) -> gpu.Run:
        made = gpu.Run(tmp_path / "payload", tmp_path / "out", scripts=tmp_path, **changes)
        made.begin({"started": "now"})
        return made

    return make


def task(tmp_path: Path, name: str, kind: str = "works", seconds: float = 60) -> Task:
    return Task("fake", kind, name, {"name": name, "log": str(tmp_path / "log")}, seconds)


def done(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text(encoding="utf-8").split()


def test_what_is_found_is_kept_at_once(tmp_path: Path, run: Any) -> None:
    made = run()
    made.do(task(tmp_path, "a/b"))
    kept = json.loads((tmp_path / "out/all.json").read_text(encoding="utf-8"))
    assert (kept["a/b"]["value"], kept["a/b"]["run"]) == (7, "now")
    assert kept["a/b"]["path"][0] == str(Path(gpu.__file__).parents[1])  # the package of this checkout comes first
    assert kept["a/b"]["path"][-1] == str((tmp_path / "payload/site").resolve())


def test_a_second_run_does_what_is_left_and_what_failed(tmp_path: Path, run: Any) -> None:
    tasks = [task(tmp_path, "a"), task(tmp_path, "b", "fails"), task(tmp_path, "c")]
    first = run(only="")
    for one in first.left(tasks[:2]):
        first.do(one)
    assert first.found["b"]["failed"].strip() == "no memory left"
    second = run()
    assert second.found["earlier"] == [{"started": "now"}]
    assert [one.name for one in second.left(tasks)] == ["b", "c"]
    assert [one.name for one in run(only="c").left(tasks)] == ["c"]
    for one in second.left([tasks[0], task(tmp_path, "b"), tasks[2]]):
        second.do(one)
    assert done(tmp_path) == ["a", "b", "b", "c"]
    assert "failed" not in second.found["b"]


def test_what_takes_too_long_has_failed_and_leaves_no_process(tmp_path: Path, run: Any) -> None:
    made = run()
    made.do(task(tmp_path, "slow", "hangs", 30))
    assert made.found["slow"]["failed"] == "took longer than 30 s"
    assert made.found["slow"]["process_s"] == 30
    assert processes.ended(Hanging.child)


def test_what_the_end_of_a_run_cuts_off_is_not_held_against_it(tmp_path: Path, run: Any) -> None:
    made = run(minutes=30 / 60)
    made.do(task(tmp_path, "slow", "hangs"))
    made.do(task(tmp_path, "next"))
    assert made.cut == ["slow", "next"]
    assert done(tmp_path) == ["slow"]
    assert [one.name for one in run().left([task(tmp_path, "slow"), task(tmp_path, "next")])] == ["slow", "next"]


def test_every_measurement_has_a_name_of_its_own() -> None:
    names = [one.name for point in gpu_points.POINTS.values() for one in point()]
    assert len(set(names)) == len(names) == 120
    assert {name.partition("/")[0] for name in names} == set(gpu_points.POINTS)


def test_every_script_knows_what_it_is_asked_for() -> None:
    """Those that this machine cannot import say so in their text."""
    for point in gpu_points.POINTS.values():
        for one in point():
            text = (Path(gpu.__file__).parent / f"{one.script}.py").read_text(encoding="utf-8")
            assert f'"{one.kind}"' in text or f"def {one.kind}(" in text, one


def test_the_slowest_of_the_cpus_engines_begin() -> None:
    names = [one.name for one in gpu_points.accuracy("cpu")]
    assert len(names) == 12
    assert all("/base/" in name and "/30s/" in name for name in names[:3])
    assert all(name.startswith("accuracy/tiny.en/") and "/short/" in name for name in names[-3:])
