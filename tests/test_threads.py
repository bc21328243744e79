"""Work done ahead: in order, a little at a time, and stopped when nobody asks any more. NumPy's own threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_engine import clip, tiny_en
from whisper_factory import threads


def test_results_come_in_order() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(threads.ahead(slow_at_first, range(50))) == [number * number for number in range(50)]
    assert list(threads.ahead(slow_at_first, [])) == []


def test_only_a_few_are_held() -> None:
    begun: list[int] = []
    results = threads.ahead(lambda number: begun.append(number), iter(range(1000)))
    next(results)
    time.sleep(0.05)
    assert len(begun) <= threads.MOST + 1
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= threads.MOST + 1
    assert threading.active_count() < 20


def test_an_error_comes_where_its_result_would() -> None:
    def third(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    results = threads.ahead(third, range(100))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)


def test_an_error_of_the_source() -> None:
    def two() -> Iterator[int]:
        yield from (0, 1)
        raise KeyError("no more")

    with pytest.raises(KeyError):
        list(threads.ahead(lambda number: number, two()))


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_mapped_comes_in_order(count: int) -> None:
    with threads.mapping(count) as mapped:
        assert list(mapped(lambda number: number * number, range(20))) == [number * number for number in range(20)]
        with pytest.raises(ZeroDivisionError):
            list(mapped(lambda number: 1 // number, [1, 0]))


def test_all_items_are_mapped_at_once() -> None:
    meeting = threading.Barrier(3, timeout=30)  # of three threads, else it breaks
    with threads.mapping(3) as mapped:
        assert sorted(mapped(lambda number: meeting.wait(), range(3))) == [0, 1, 2]


def test_items_go_to_whoever_is_free() -> None:
    stopped, done = threading.Event(), []
    begun, free = threading.Event(), threading.Event()

    def work(worker: str, item: int) -> None:
        if worker == "slow":
            begun.set()
            assert free.wait(30)
        assert begun.wait(30)
        done.append((worker, item))
        if len(done) == 4:
            free.set()

    threads.shared(work, ["slow", "quick"], range(5), stopped)
    assert [worker for worker, _ in done] == ["quick"] * 4 + ["slow"]
    assert sorted(item for _, item in done) == list(range(5))
    assert stopped.is_set()


def test_a_failure_stops_the_others_and_is_raised() -> None:
    stopped, begun = threading.Event(), []

    def work(worker: int, item: int) -> None:
        begun.append(item)
        if worker == 0:
            raise ValueError(f"worker {worker}")
        assert stopped.wait(30)
        raise threads.Stopped

    with pytest.raises(ValueError, match="worker 0"):
        threads.shared(work, [0, 1], range(100), stopped)
    assert len(begun) <= 2


LOOK_ON = """
import os, sys
def tell(event, given):
    if event == "import" and given[0] == "numpy":
        sys.stderr.write(f"numpy with {os.environ.get('OPENBLAS_NUM_THREADS')}\\n")
sys.addaudithook(tell)
"""
COMMANDS = {
    "run": "from whisper_factory import run; run.main(['--engine_dir', {engine}, '--input_file', {clip}])",
    "bench": ("from whisper_factory import bench; "
              "bench.main(['engine_dir=' + {engine}, 'files=' + {clip}, 'repeats=1'])"),
    "what listens": "from whisper_factory import measure; measure.when_told('onnxruntime')",
    "measure": "from whisper_factory import measure; measure.main([{engine}, {manifest}, {manifest} + '.out'])",
    "making": ("from whisper_factory.__main__ import main; sys.argv[1:] = ['model=debug', 'stop_after=convert', "
               "'store.path=' + {scratch}, 'outputs=' + {scratch}]; main()"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_import_numpy_with_one_thread(command: str, tmp_path: Path) -> None:
    """Whichever module of theirs needs it first; programs that they start are not told."""
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"clips": [{"paths": [str(clip("sample"))]}]}), encoding="utf-8")
    given = COMMANDS[command].format(engine=repr(str(tiny_en())), clip=repr(str(clip("sample"))),
                                     manifest=repr(str(manifest)), scratch=repr(str(tmp_path / "scratch")))
    assert _said(LOOK_ON + given) == ["numpy with 1"]


def test_numpy_with_one_thread() -> None:
    """The process then has no more than it began with; unless the user says how many."""
    code = ("import os; from whisper_factory.threads import import_numpy; import_numpy(); import sys; "
            "print('numpy with', len(os.listdir('/proc/self/task')), os.environ.get('OPENBLAS_NUM_THREADS'), "
            "'numpy' in sys.modules, file=sys.stderr)")
    assert _said(code) == ["numpy with 1 None True"]
    assert _said(LOOK_ON + code, OPENBLAS_NUM_THREADS="2")[0] == "numpy with 2"


def _said(code: str, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    done = subprocess.run([sys.executable, "-c", code], env={**kept, **environment}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=True)
    return [line for line in done.stderr.splitlines() if line.startswith("numpy with")]
