from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.real_engine import clip, duplex
from tests.recorder import Recorder
from whisper_factory.steps import audition, listening
from whisper_factory.steps.audition import Audition


def requests() -> list[dict[str, Any]]:
    """Clips and edge recordings, mixed as they never are."""
    names = ("river", "soup", "sample", "river", "soup", "sample")
    return [{"paths": [str(clip(name))], "shift_seconds": 0.5 * number, "edge": number % 2 == 1}
            for number, name in enumerate(names)]


def heard(count: int, scratch: Path, monkeypatch: pytest.MonkeyPatch, beside: bool = False
          ) -> tuple[dict[str, Any], Recorder]:
    """The report, of this many processes for edge recordings."""
    told = Recorder()
    monkeypatch.setattr(audition, "side_by_side", lambda spec: count)
    before = processes.children()
    with Audition(duplex() / "engine", requests(), scratch, beside) as begun:
        assert len(processes.children() - before) == (1 if count == 1 else 2 if beside else 3)
        report = begun.report(1, told)
    assert processes.children() <= before
    assert not scratch.exists()
    return report, told


@pytest.mark.parametrize("beside", [False, True])
def test_edge_recordings_are_heard_side_by_side_as_they_are_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    alone, told_alone = heard(1, tmp_path / "alone", monkeypatch)
    together, told = heard(2, tmp_path / "together", monkeypatch, beside)
    for key in ("text", "tokens", "seconds", "windows"):
        assert [row[key] for row in together["clips"]] == [row[key] for row in alone["clips"]], key
    assert [opened[0] for opened in told_alone.opened] == [6]
    assert [opened[0] for opened in told.opened] == [2, 4]  # the first edge recording is heard with the clips
    assert sum(told.amounts) == sum(told_alone.amounts) == 6
    assert together["threads"] == alone["threads"]


@pytest.mark.parametrize(("edge", "asked", "warm_up"), [(True, [3, 0, 1, 2], False), (False, [0, 1, 2, 3], True)])
def test_what_is_timed_is_heard_by_an_engine_that_is_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edge: bool, asked: list[int], warm_up: bool
) -> None:
    """By an edge recording that has to be heard anyway; where there is none, by a clip that is heard once more."""
    given = [{"paths": [str(clip("river"))], "edge": edge and place == 3, "place": place} for place in range(4)]

    def listen(self: Any, engine: Path, requests: list[dict[str, Any]], *other: Any, **named: Any) -> dict[str, Any]:
        assert [request["place"] for request in requests] == asked
        assert named == {"warm_up": warm_up}
        return {"clips": [{"place": request["place"]} for request in requests]}

    monkeypatch.setattr(audition.Ears, "listen", listen)
    with Audition(duplex() / "engine", given, tmp_path / "scratch") as begun:
        assert begun.report(1)["clips"] == [{"place": place} for place in range(4)]


def test_nothing_is_left_of_one_that_cannot_be_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audition, "side_by_side", lambda spec: 2)
    monkeypatch.setattr(audition.Ears, "ask", full)
    before = processes.children()
    with pytest.raises(OSError, match="No space left"):
        Audition(duplex() / "engine", requests(), tmp_path / "scratch")
    assert processes.children() <= before
    assert list(tmp_path.iterdir()) == []


def test_processes_of_their_own_where_there_is_memory_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = audition.EngineSpec.load(duplex() / "engine")
    needed = listening.memory.estimate(spec).peak
    monkeypatch.setattr(listening, "physical_cores", lambda: 2)
    for host, expected in ((4 * needed, 2), (4 * needed - 1, 1), (None, 1)):
        monkeypatch.setattr(listening.memory, "host_memory", lambda host=host: host)
        assert listening.side_by_side(spec) == expected
    monkeypatch.setattr(listening.memory, "host_memory", lambda: 4 * needed)
    monkeypatch.setattr(listening, "physical_cores", lambda: 1)
    assert listening.side_by_side(spec) == 1
