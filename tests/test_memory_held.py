"""Memory of real processes: what a turn takes, what a long session keeps, and what two processes share."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.real_engine import PAGED, clip, duplex, tiny_en
from whisper_factory import resident

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def benchmark(name: str, out: Path, *arguments: object) -> dict[str, Any]:
    """A benchmark's report, written to `out`."""
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--json", out, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return report


def test_a_turn_in_less_than_115_mb(tmp_path: Path) -> None:
    """The whole process, Python included, for a clip of 7 s: whisper.cpp's q5_0 of the same weights takes 104."""
    audio, rate = soundfile.read(clip("sample"))
    soundfile.write(tmp_path / "turn.wav", np.resize(audio, 7 * rate), rate)
    command = [sys.executable, "-m", "whisper_factory.run", "--engine_dir", duplex(), "--report_memory", "--input_file",
               tmp_path / "turn.wav"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    said = re.search(r"memory: ([\d.]+) MB at peak, of which ([\d.]+) MB are Python .* takes ([\d.]+) MB when loaded, "
                     r"([\d.]+) MB while loading, ([\d.]+) MB at peak", done.stderr)
    assert said, done.stderr
    whole, baseline, loaded, loading, peak = map(float, said.groups())
    assert abs(baseline + peak - whole) < 0.2
    assert 35 < loaded <= loading <= peak < 100
    assert 85 < whole < 115


def test_memory_stays_flat_in_a_session(tmp_path: Path) -> None:
    """Three minutes in turns of ten seconds; benchmarks/long_session.py runs thirty."""
    report = benchmark("long_session", tmp_path / "out.json", "--engine_dir", duplex(), "--minutes", 3)
    rss = report["rss_bytes"]
    assert len(rss) == 18
    assert report["words"] > 300
    assert not any(report["pages_in_use"])
    assert max(rss[9:]) - max(rss[2:9]) < 6e6
    assert report["slope_bytes_per_turn"] < 3 * report["slope_error"] + 50e3


def test_two_processes_share_what_is_mapped(tmp_path: Path) -> None:
    """A float32 encoder in paged mode, and of an int8 one what is not repacked: both have it from the file's pages."""
    for precision, shared in (("float32", 0.9), ("int8", 0.1)):
        engine = tiny_en(750, precision, PAGED)
        found = benchmark("shared_weights", tmp_path / "out.json", "--engine_dir", engine)
        weights, size = found["encoder.weights"], (engine / "engine" / "encoder.weights").stat().st_size
        assert weights["Shared_Clean"] + weights["Shared_Dirty"] > shared * size  # dirty: not on the disk yet
        assert weights["Private_Clean"] + weights["Private_Dirty"] < 1_000_000  # what was mapped around
        assert weights["Pss"] < 0.6 * weights["Rss"]


def test_libraries_are_imported_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is for transcripts; what is missing is told by what loads the engine."""
    (tmp_path / "talkative.py").write_text("print('version 7')", encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise OSError('libcudart')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    resident.Meter(("no_such_library", "broken", "talkative"))
    assert capsys.readouterr() == ("", "version 7\n")


def test_memory_is_measured_where_it_is_said() -> None:
    gc.collect()  # what other tests left may not go meanwhile
    memory = resident.Meter(("json",))
    held = bytearray(b"x") * 70_000_000  # so large that it is not taken from what lies around
    memory.loaded()
    before = memory.read()
    assert 69e6 < before.loaded - before.baseline < 72e6
    assert before.load_peak >= before.loaded
    more = bytearray(b"x") * (before.peak - resident.now() + 70_000_000)
    after = memory.read()
    assert after.peak > before.peak + 60e6
    assert (after.loaded, after.load_peak) == (before.loaded, before.load_peak)
    del held, more
    assert memory.read().peak > after.peak - 1e6  # the system's count is not exact
