"""What a validation is summed up in."""

from __future__ import annotations

import pytest

from whisper_factory import report

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
