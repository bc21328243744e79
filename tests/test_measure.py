"""`python -m whisper_factory.measure`, as validation calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real_engine import clip, tiny_en
from whisper_factory import measure
from whisper_factory.whisper.options import Options

NAMES = ("river", "soup", "sample")


def short() -> Path:
    """An engine for 15 s, which hears in half the time of one for 30."""
    return tiny_en(1500)


@pytest.fixture
def measured(python: Callable[..., Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Measure in a fresh process and return the report."""

    def run(repeats: int = 1, **manifest: Any) -> dict[str, Any]:
        asked, out = tmp_path / "manifest.json", tmp_path / "out.json"
        asked.write_text(json.dumps(manifest), encoding="utf-8")
        done = python("whisper_factory.measure", short(), asked, out, "--repeats", repeats, "--threads", 1)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return report

    return run


def test_the_report(measured: Callable[..., dict[str, Any]]) -> None:
    clips: list[dict[str, Any]] = [{"paths": [str(clip(name))], "name": name} for name in NAMES]
    clips.append({"paths": [str(clip("river"))], "shift_seconds": 2.5})
    report = measured(repeats=2, clips=clips)
    first, last = report["clips"][0], report["clips"][-1]
    assert first["text"] == last["text"] == "The river is too cold for swimming at this time of year."
    assert last["seconds"] == pytest.approx(first["seconds"] + 2.5)
    assert (first["stopped"], first["runaway"], first["windows"], first["language"]) == ("eot", False, 1, None)
    assert len(first["tokens"]) > 10
    assert first["warnings"] == []
    assert all(entry["latency_s"] > 0 for entry in report["clips"])
    total = sum(entry["latency_s"] for entry in report["clips"])
    assert report["real_time_factor"] == pytest.approx(total / report["audio_s"])
    # tiny.en in float32 is 150 MB of weights
    assert report["peak_rss_bytes"] >= report["loaded_rss_bytes"] > report["baseline_rss_bytes"] + 100e6
    assert report["baseline_rss_bytes"] > 20e6
    assert report["load_s"] > 0
    assert report["threads"] == 1
    assert {"numpy", "python"} < set(report["versions"])


def test_a_clip_may_say_how_often_it_is_heard() -> None:
    heard: list[int] = []

    class Counting:
        def transcribe(self, clips: list[Any], options: Any) -> list[Any]:
            heard.append(clips[0])
            return [object()]

    measure._timed_one_by_one(Counting(), [7, 8], Options(), [3, 1], None)  # type: ignore[arg-type]
    assert heard == [7, 7, 7, 8]


def test_a_batch_hears_the_same(measured: Callable[..., dict[str, Any]]) -> None:
    clips = [{"paths": [str(clip(name))]} for name in NAMES]
    alone = measured(clips=clips, options={"num_beams": 2})
    together = measured(clips=clips, options={"num_beams": 2}, batch=True)
    assert [entry["tokens"] for entry in together["clips"]] == [entry["tokens"] for entry in alone["clips"]]
    assert len({entry["latency_s"] for entry in together["clips"]}) == 1


def test_progress_is_a_line_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = tmp_path / "manifest.json"
    asked.write_text(json.dumps({"clips": [{"paths": [str(clip(name))]} for name in NAMES[:2]]}), encoding="utf-8")
    assert measure.main([str(short()), str(asked), str(tmp_path / "out.json"), "--progress"]) == 0
    assert capsys.readouterr().out == "heard 1 of 2\nheard 2 of 2\n"


def test_so_many_clips_at_once() -> None:
    given: list[list[int]] = []

    class Batched:
        def transcribe(self, clips: list[Any], options: Any) -> list[Any]:
            given.append(clips)
            return [object()] * len(clips)

    told: list[tuple[int, int]] = []
    found, latencies = measure._timed_batches(
        Batched(), [1, 2, 3, 4, 5], Options(), 1, 2, lambda *at: told.append(at))  # type: ignore[arg-type]
    assert given == [[1, 2], [3, 4], [5]]
    assert (len(found), len(latencies)) == (5, 5)
    assert told == [(count, 5) for count in range(1, 6)]


@pytest.mark.parametrize(("manifest", "message"), [
    ("{", "is not a manifest"),
    ("{}", "is not a manifest"),
    ('{"clips": []}', "lists no clips"),
    ('{"clips": [{"paths": ["none.wav"]}]}', "cannot read the audio file 'none.wav'"),
    ('{"clips": [{"paths": ["none.wav"]}], "options": {"beams": 4}}', "unknown option 'beams' in the manifest; did"),
    ('{"clips": [{"paths": ["none.wav"]}], "options": {"num_beams": 40}}', "num_beams=40: this engine takes 1 to 5"),
])
def test_mistakes(manifest: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = tmp_path / "manifest.json"
    asked.write_text(manifest, encoding="utf-8")
    assert measure.main([str(short()), str(asked), str(tmp_path / "out.json")]) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
