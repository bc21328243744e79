"""Tables made of what a GPU's runs left."""

from __future__ import annotations

from typing import Any

import gpu_report
import pytest

CLIPS = [{"text": "one two three", "sentence": "a"}, {"text": "four five", "sentence": "b"}]


def heard(*texts: str) -> dict[str, Any]:
    return {"texts": list(texts), "tokens": [text.split() for text in texts]}


def test_accuracy_is_of_what_both_engines_heard() -> None:
    found = {"accuracy/base/int8/30s/cpu": heard("one two three", "four five"),
             "accuracy/base/int8/30s/cuda": heard("one too three", "four five"),
             "accuracy/base/int8/short/cpu": heard("one two three", "four five"),
             "accuracy/base/int8/short/cuda": {"failed": "no memory"}}
    (_, row) = gpu_report.accuracy(found, CLIPS)
    assert row[:4] == ["base int8", "30 s", "0.00", "20.00"]
    assert row[5:] == ["1", "1.000", "1.00"]


def test_what_is_missing_is_said() -> None:
    found = {"latency/tiny.en/int8-as-peers": {"median_ms": 4.26}, "latency/base/int8-as-peers": {"failed": "why"},
             "latency/base/openai-whisper": {"median_ms": 66.0}}
    assert gpu_report.latency(found) == [["", "tiny.en", "base"], ["ours, int8", "4.3", "failed"],
                                         ["openai-whisper", "not run", "66.0"]]


def test_no_best_of_others_that_did_not_all_run() -> None:
    found = {"throughput/30s/8/float16": {"real_time": 600.0, "recordings_a_second": 20.0},
             "throughput/30s/8/transformers": {"real_time": 150.0},
             "throughput/30s/8/transformers-static": {"real_time": 200.0}}
    assert gpu_report.throughput(found)[1] == ["30 s", "8", "600", "20", "200", "150", "not told"]
    found["throughput/30s/8/openai-whisper"] = {"real_time": 100.0}
    assert gpu_report.throughput(found)[1][-1] == "3.0"


def test_a_steps_share_of_the_bandwidth() -> None:
    found = {"limits/bandwidth": {"bytes_a_second": 2e12},
             "limits/steps/base/int8/32/graphs": {"step_us": 100.0, "bytes": 50_000_000},
             "limits/steps/tiny.en/int8/1/graphs": {"failed": "why"}}
    assert gpu_report.limits(found)[1:] == [["base int8", "32", "50.0 MB", "100 us", "25.0 %", "not run"]]
    assert len(gpu_report.limits({name: one for name, one in found.items() if "steps" in name})) == 1


def test_memory_is_held_against_the_plan_as_it_is() -> None:
    name = "memory/tiny.en/int8/duplex_lowmem"
    found = {f"{name}/paged": {"loaded": 900e6, "peak": 950e6}, "memory/base/int8/batch/paged": {}}
    (row,) = gpu_report.memory(found)[1:]
    assert row[0] == "tiny.en int8 duplex_lowmem paged"
    assert (row[1], row[3]) == ("900", "950")
    (other,) = gpu_report.memory({name: found[f"{name}/paged"]})[1:]  # as the first runs called it
    assert other[0] == "tiny.en int8 duplex_lowmem contiguous"
    assert int(other[2]) > int(row[2])  # a paged cache has nothing when the engine is loaded
    assert row[5].startswith(f"{int(row[4]) - 950:+d} MB (")


def test_integers_are_told_by_the_worst_of_a_kind() -> None:
    matrix = {"bits": 8, "family": "sm90", "error": 1e-7, "error_with_one_byte_changed": 0.02}
    found = {"integers": {"matrices": [matrix, {**matrix, "error": 3e-7, "error_with_one_byte_changed": 0.01}]}}
    assert gpu_report.integers(found)[1:] == [["8", "sm90", "2", "3.0e-07", "1.0e-02"]]


def test_a_table_takes_the_place_of_the_one_below_its_heading() -> None:
    text = "# T\n\n### Memory\n\nSaid.\n\n| a |\n|---|\n| 1 |\n\nMore.\n\n| b |\n|---|\n\n### Latency\n\nNone.\n"
    changed = gpu_report.replaced(text, "Memory", "| new |\n|---|")
    assert changed == text.replace("| a |\n|---|\n| 1 |\n", "| new |\n|---|\n")
    with pytest.raises(ValueError, match="no table below a heading '### Latency'"):
        gpu_report.replaced(text, "Latency", "| new |")


def test_a_run_that_left_nothing_makes_no_table() -> None:
    assert gpu_report.tables({}, CLIPS) == {}
