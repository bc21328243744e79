"""What a validation is summed up in, and what a result says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command
from whisper_factory import clips, report

SUMMARY = {
    "wer": 4.0, "reference_wer": 4.0, "clips": 2, "token_agreement": 1.0, "edge_clips": 0, "latency_ms_mean": 20.0,
    "real_time_factor": 0.1, "threads": 1, "load_ms": 5.0, "peak_rss_mb": 900.0, "baseline_rss_mb": 60.0, "runaways": 0,
    "circles": 0,
}


@pytest.mark.parametrize(("on_gpu", "ending"), [
    (False, "60 MB is Python and its libraries"),
    (True, "60 MB is Python and its libraries; what lies on the GPU is not in it"),
])
def test_memory_of_a_process_is_not_called_a_gpus(on_gpu: bool, ending: str) -> None:
    found = {"summary": SUMMARY, "clips": [{"heard": "Good day."}], "evidence": "engine", "gates": [], "name": "quick"}
    (line,) = [line for line in report._validation(found, on_gpu) if line.startswith("memory")]
    assert line.endswith(ending)


def test_circles_are_told_where_there_are_some() -> None:
    def said(circles: int) -> list[str]:
        found = {"summary": {**SUMMARY, "circles": circles}, "clips": [{"heard": "Good day."}], "evidence": "engine",
                 "gates": [], "name": "quick"}
        return [line for line in report._validation(found, False) if line.startswith("circles")]

    assert said(0) == []
    assert said(2) == ["circles     2 without an end, after whose first round it heard on"]


def test_what_to_try_is_as_short_as_one_would_type_it(python: Command, shared_store: Path, tmp_path: Path) -> None:
    """In a checkout the sample lies below the working directory; an installed package's lies elsewhere."""
    sample = clips.bundled("quick")[0].path

    def tried(cwd: Path) -> str:
        made = python("whisper_factory", "model=debug", "validation=none", f"store.path={shared_store}",
                      f"outputs={tmp_path}/outputs", cwd=cwd)
        (line,) = [line for line in made.stdout.splitlines() if line.startswith("try it")]
        return line

    assert tried(sample.parents[1]).endswith("--input_file clips/sample.flac")
    assert tried(tmp_path).endswith(f"--input_file {sample}")
