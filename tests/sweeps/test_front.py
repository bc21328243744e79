"""The Pareto front, the order of a sweep's compositions, and what they are called."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweeps.samples import failed, row, twelve, twenty_four
from whisper_factory.sweeps.front import Row, front, labels, objectives, ranked

few = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf]))  # few: many ties
rows_of_any_kind = st.lists(st.builds(
    lambda wer, latency, peak, status: row(wer=wer, latency_ms_p50=latency, peak_mb=peak, status=status),
    few, few, few, st.sampled_from(["passed", "passed", "passed", "missed", "failed"]),
), max_size=12)


def beats(one: Row, other: Row) -> bool:
    """The definition, spelled out again."""
    mine, theirs = objectives(one), objectives(other)
    assert mine is not None
    assert theirs is not None
    return (mine[0] <= theirs[0] and mine[1] <= theirs[1] and mine[2] <= theirs[2]
            and (mine[0] < theirs[0] or mine[1] < theirs[1] or mine[2] < theirs[2]))


@given(rows_of_any_kind)
def test_no_member_is_dominated_and_every_other_is_dominated_by_a_member_or_unfit(rows: list[Row]) -> None:
    members = [row for row, on_it in zip(rows, front(rows), strict=True) if on_it]
    for one, on_it in zip(rows, front(rows), strict=True):
        if one["status"] != "passed" or objectives(one) is None:
            assert not on_it
        else:
            assert on_it != any(beats(member, one) for member in members)


@given(rows_of_any_kind)
def test_the_order_holds_every_row_once_and_the_front_first(rows: list[Row]) -> None:
    entries = ranked(rows)
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert all(row in [entry.row for entry in entries] for row in rows)
    assert all(entry.row in rows and entry.row not in [other.row for other in entries if other is not entry]
               for entry in entries)
    kinds = [(not entry.on_front, ("passed", "missed", "failed").index(entry.row["status"])) for entry in entries]
    assert kinds == sorted(kinds)


def test_equal_compositions_are_on_the_front_together() -> None:
    assert front([row(), row(), row(wer=5.0)]) == [True, True, False]


@pytest.mark.parametrize("worse", ["wer", "latency_ms_p50", "peak_mb"])
def test_a_tie_in_two_objectives_is_decided_by_the_third(worse: str) -> None:
    assert front([row(**{worse: 1000.0}), row()]) == [False, True]


@pytest.mark.parametrize("missing", ["wer", "latency_ms_p50", "peak_mb"])
def test_what_was_not_measured_in_all_three_is_not_on_the_front_and_keeps_nothing_off_it(missing: str) -> None:
    assert front([row(wer=0.0, latency_ms_p50=1.0, peak_mb=1.0) | {missing: None}, row()]) == [False, True]


def test_a_missed_gate_and_a_failure_keep_nothing_off_the_front() -> None:
    best = {"wer": 0.0, "latency_ms_p50": 1.0, "peak_mb": 1.0}
    assert front([row(status="missed", **best), row(status="failed", **best), row()]) == [False, False, True]


def test_nothing_is_on_the_front_of_nothing() -> None:
    assert front([]) == []
    assert front([failed()]) == [False]


def test_labels_say_what_varies() -> None:
    assert labels(twelve())[0] == "tiny.en int8 interactive"
    rows = [row(overrides=["model=tiny.en", "+profile.max_input_len=900"]),
            row(overrides=["model=tiny.en", "+profile.max_input_len=750"])]
    assert labels(rows) == ["max_input_len=900", "max_input_len=750"]


def test_labels_are_whole_names_where_overrides_do_not_tell_compositions_apart() -> None:
    rows = [row(composition="a-one", overrides=["model=a"]), row(composition="a-two", overrides=["model=a"]),
            row(composition="b-one", overrides=["model=b"])]
    assert labels(rows) == ["a-one", "a-two", "b-one"]
    assert labels([row()]) == ["tiny.en-int8-duplex_lowmem-paged-onnxruntime"]


def test_a_composition_that_a_search_came_back_to_is_there_once_under_its_short_name() -> None:
    rows = [row(overrides=["model=a"]), row(overrides=["model=b"]), row(overrides=["model=a"])]
    assert [entry.label for entry in ranked(rows)] == ["a", "b"]
    changed = row(overrides=["model=a"], latency_ms_p50=140.0)  # measured anew in between
    assert [entry.label for entry in ranked([*rows, changed])] == ["a", "b", "a"]


def test_an_override_that_some_rows_lack_tells_them_apart() -> None:
    assert labels([row(overrides=["model=a"]), row(overrides=["model=b", "precision=int4"])]) == ["a", "b int4"]


def test_the_order_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = twenty_four()
    assert [entry.row for entry in ranked(rows)] == [entry.row for entry in ranked(rows[::-1])]
