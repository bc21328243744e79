from __future__ import annotations

from typing import Any

from whisper_factory.steps import validate

REPORT = {"load_s": 0.1, "peak_rss_bytes": 150e6, "baseline_rss_bytes": 50e6, "threads": 2, "versions": {"numpy": "2"}}


def row(**changes: Any) -> dict[str, Any]:
    plain = {"name": "a", "edge": False, "seconds": 2.0, "windows": 1, "latency_ms": 100.0, "words": 10,
             "word_errors": 1, "reference_word_errors": 0, "tokens": 20, "token_differences": 2, "runaway": False,
             "circles": 0, "reference_runaway": False}
    return {**plain, **changes}


def test_summary_counts_over_all_clips_and_keeps_edge_clips_apart() -> None:
    rows = [row(), row(words=25, word_errors=1, tokens=20, token_differences=0, latency_ms=300.0),
            row(words=5, word_errors=0, tokens=4, token_differences=2, latency_ms=200.0, windows=2),
            row(edge=True, words=10, word_errors=5, tokens=10, token_differences=5, runaway=True, circles=3,
                latency_ms=9000.0)]
    summary = validate.summarise(rows, REPORT)
    assert summary["wer"] == 5.0  # 2 errors in 40 words, not the mean of 10 % and 3.3 %
    assert summary["reference_wer"] == 0.0
    assert summary["token_agreement"] == 0.95  # of what fitted in one window
    assert summary["cut_token_agreement"] == 0.5
    assert (summary["edge_clips"], summary["edge_wer"], summary["edge_token_agreement"]) == (1, 50.0, 0.5)
    assert (summary["clips"], summary["cut_clips"], summary["runaways"], summary["circles"]) == (3, 1, 1, 3)
    assert (summary["latency_ms_mean"], summary["latency_ms_max"]) == (200.0, 300.0)
    assert summary["real_time_factor"] == 0.1
    assert summary["peak_rss_mb"] == 150.0


def test_gates_are_those_that_are_configured() -> None:
    summary = validate.summarise([row()], REPORT)
    assert validate.judge(summary, {"min_token_agreement": None, "max_wer_increase": None}) == []
    gates = validate.judge(summary, {"min_token_agreement": 0.9, "max_wer_increase": 5.0, "max_latency_ms": 99.0})
    assert [(gate["name"], gate["value"], gate["passed"]) for gate in gates] == [
        ("token_agreement", 0.9, True), ("wer_increase", 10.0, False), ("latency_ms_mean", 100.0, False)]


def test_edge_clips_are_gated_apart_and_the_remedy_is_named() -> None:
    summary = validate.summarise([row(token_differences=0), row(edge=True, token_differences=10)], REPORT)
    gates = validate.judge(summary, {"min_token_agreement": 0.9, "min_edge_token_agreement": 0.9, "max_runaways": 0})
    assert [gate["passed"] for gate in gates] == [True, False, True]
    said = validate.missed({"gates": gates})
    assert said == f"edge_token_agreement is 0.5, wanted at least 0.9 ({validate.EDGE_REMEDY})"


def test_a_missed_upper_limit_says_at_most() -> None:
    gates = validate.judge(validate.summarise([row()], REPORT), {"max_peak_mb": 100.0})
    assert validate.missed({"gates": gates}) == "peak_rss_mb is 150.0, wanted at most 100.0"


def test_a_clip_on_which_the_reference_ran_away_is_no_yardstick() -> None:
    lost = row(reference_runaway=True, reference_word_errors=90, token_differences=20, word_errors=0)
    summary = validate.summarise([row(), lost, row(edge=True), {**lost, "edge": True}], REPORT)
    assert (summary["token_agreement"], summary["edge_token_agreement"]) == (0.9, 0.9)
    assert summary["wer_increase"] == 10.0  # of the other clip alone
    assert summary["reference_wer"] == 450.0  # and what the reference did is shown
    assert summary["reference_runaways"] == 2
