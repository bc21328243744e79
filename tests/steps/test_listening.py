from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from whisper_factory import clips
from whisper_factory.errors import EnvironmentFault
from whisper_factory.steps import listening


def quick() -> list[dict[str, Any]]:
    return [asdict(clip) for clip in clips.bundled("quick")]


def test_a_full_window_has_no_edge_clips() -> None:
    requests = listening.clip_requests(quick(), 3000, short_window=False)
    assert len(requests) == 12
    assert all(request["shift_seconds"] == 0 and not request["edge"] for request in requests)


@pytest.mark.parametrize("max_input_len", [750, 1500])
def test_edge_clips_end_within_the_last_100_frames(max_input_len: int) -> None:
    seconds = {clip.name: clip.seconds for clip in clips.bundled("quick")}
    edge = [request for request in listening.clip_requests(quick(), max_input_len, True) if request["edge"]]
    assert len(edge) >= 10
    for request in edge:
        end = seconds[request["name"]] + request["shift_seconds"]
        assert max_input_len / 100 - 1.0 <= end <= max_input_len / 100


def test_an_engine_that_fails_is_the_environments_fault_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"failed while being validated \(exit code 2\): .*engine") as caught:
        listening.listen(tmp_path / "absent", [], tmp_path, repeats=1)
    assert "\n" not in str(caught.value)
