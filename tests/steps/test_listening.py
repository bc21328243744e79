from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests import processes, real_engine
from tests.compositions import tiny_en
from tests.real_engine import clip, duplex
from tests.recorder import Recorder
from whisper_factory import clips
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.progress import Advance, Progress, silent
from whisper_factory.steps import listening
from whisper_factory.steps.listening import Ears


def quick() -> list[dict[str, Any]]:
    return [asdict(clip) for clip in clips.bundled("quick")]


def listen(engine: Path, requests: list[dict[str, Any]], scratch: Path, progress: Progress = silent) -> dict[str, Any]:
    with Ears("onnxruntime") as ears:
        return ears.listen(engine, requests, scratch, 1, progress)


def hear(engine: Path, requests: list[dict[str, Any]], scratch: Path, batch: int, progress: Progress = silent
         ) -> list[dict[str, Any]]:
    """By two processes."""
    with Ears("onnxruntime", 2) as ears:
        ears.ask(engine, requests, scratch, batch)
        return ears.answer(progress)


def test_a_full_window_has_no_edge_clips() -> None:
    requests = listening.clip_requests(quick(), 3000, short_window=False)
    assert len(requests) == 12
    assert all(request["shift_seconds"] == 0 and not request["edge"] for request in requests)


@pytest.mark.parametrize("max_input_len", [750, 1500])
def test_edge_recordings_end_within_the_last_100_frames(max_input_len: int) -> None:
    seconds = {str(clip.path): clip.seconds for clip in clips.bundled("quick")}
    edge = [request for request in listening.clip_requests(quick(), max_input_len, True) if request["edge"]]
    assert len(edge) == 12
    for request in edge:
        assert len(set(request["paths"])) == len(request["paths"]) == request["name"].count("+") + 1
        spoken = sum(seconds[str(path)] for path in request["paths"])
        assert max_input_len / 100 - 1.0 <= spoken + request["shift_seconds"] <= max_input_len / 100
    assert [len(request["paths"]) > 1 for request in edge] == [False, True] * 6  # by turns
    assert all(request["shift_seconds"] < max(seconds.values()) for request in edge[1::2])
    assert len({request["name"] for request in edge}) == 12
    assert {request["repeats"] for request in edge} == {1}  # their latency counts nowhere


def test_clips_longer_than_the_engine_accepts_make_no_edge_recording() -> None:
    requests = listening.clip_requests(quick(), 200, True)
    assert all(request["seconds"] > 1.0 for request in requests if not request["edge"])
    assert len([request for request in requests if request["edge"]]) < 12


def test_an_engine_that_fails_is_the_environments_fault_with_its_last_words(tmp_path: Path) -> None:
    tiny_en().engine_spec().save(tmp_path)
    nothing_to_hear: dict[str, Any] = {}
    with pytest.raises(EnvironmentFault, match=r"failed while being validated \(exit code 1\): .*KeyError") as caught:
        listen(tmp_path, [nothing_to_hear], tmp_path)
    assert "\n" not in str(caught.value)


def test_a_clip_that_cannot_be_read_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_en().engine_spec().save(tmp_path)
    (tmp_path / "soundfile.py").write_text("raise SystemExit('shadowed by the working directory')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^cannot read the audio file 'absent.wav'"):
        listen(tmp_path, [{"paths": ["absent.wav"]}], tmp_path)


def test_progress_is_told_clip_by_clip(tmp_path: Path) -> None:
    heard = Recorder()
    requests = [{"paths": [str(clip(name))]} for name in ("river", "soup", "sample")]
    report = listen(duplex(), requests, tmp_path, heard)
    assert len(report["clips"]) == 3
    assert heard.opened == [(3, "clips", 0)]
    assert heard.amounts == [1, 1, 1]
    assert list(tmp_path.iterdir()) == []


def test_clips_heard_in_batches_by_two_processes_are_heard_as_one_by_one(tmp_path: Path) -> None:
    engine, heard = real_engine.tiny_en(750, margin_frames=100), Recorder()
    requests = [{"paths": [str(clip(name))], "shift_seconds": shift} for shift in (0.0, 1.0) for name in
                ("river", "soup", "sample")][:5]
    one_by_one = listen(engine, requests, tmp_path)["clips"]
    together = hear(engine, requests, tmp_path, 2, heard)
    assert [row["tokens"] for row in together] == [row["tokens"] for row in one_by_one]
    assert [row["seconds"] for row in together] == [row["seconds"] for row in one_by_one]
    assert heard.opened == [(5, "clips", 0)]
    assert heard.amounts == [1] * 5
    assert list(tmp_path.iterdir()) == []


def test_one_of_two_processes_that_fails_is_told_of(tmp_path: Path) -> None:
    requests = [{"paths": [str(clip("river"))]}, {"paths": ["absent.wav"]}]
    with pytest.raises(UserError, match=r"^cannot read the audio file 'absent.wav'"):
        hear(real_engine.tiny_en(), requests, tmp_path, 8)


@pytest.mark.parametrize(("count", "hands", "expected"), [
    (8, 2, [[0, 3, 4, 7], [1, 2, 5, 6]]), (5, 2, [[0, 3, 4], [1, 2]]), (7, 3, [[0, 5, 6], [1, 4], [2, 3]]),
    (1, 2, [[0]]), (3, 1, [[0, 1, 2]]), (0, 2, []),
])
def test_clips_are_dealt_to_and_fro(count: int, hands: int, expected: list[list[int]]) -> None:
    assert listening.dealt(count, hands) == expected


def test_nobody_hears_all_edge_recordings_of_several_clips() -> None:
    requests = listening.clip_requests(quick(), 750, True)
    shares = [[len(requests[place]["paths"]) > 1 for place in share] for share in listening.dealt(len(requests), 2)]
    assert [sum(share) for share in shares] == [3, 3]
    assert [len(share) for share in shares] == [12, 12]


def test_a_process_too_many_hears_nothing(tmp_path: Path) -> None:
    (heard,) = hear(duplex(), [{"paths": [str(clip("river"))]}], tmp_path, 1)
    assert heard["text"]


def test_those_that_nobody_asks_end_with_the_block(tmp_path: Path) -> None:
    before = processes.children()
    with Ears("onnxruntime", 2):
        assert len(processes.children() - before) == 2
    assert processes.children() <= before


def test_an_interruption_ends_the_child(tmp_path: Path) -> None:
    @contextmanager
    def impatient(total: float | None, unit: str, done: float = 0) -> Iterator[Advance]:
        def interrupt(amount: float) -> None:
            raise KeyboardInterrupt

        yield interrupt

    before = processes.children()
    with pytest.raises(KeyboardInterrupt):
        listen(duplex(), [{"paths": [str(clip("sample"))]}] * 500, tmp_path, impatient)
    assert processes.children() <= before
    with pytest.raises(KeyboardInterrupt):
        hear(duplex(), [{"paths": [str(clip("sample"))]}] * 500, tmp_path, 1, impatient)
    assert processes.children() <= before
