"""Rows come out where they are wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whisper_factory.backends.moves import moves


@given(st.integers(1, 8).flatmap(lambda count: st.lists(st.integers(0, count - 1), min_size=1, max_size=8)))
def test_moves_leave_every_place_with_what_was_wanted(sources: list[int]) -> None:
    held = {place: place for place in range(8)}
    for target, source in moves(sources):
        held[target] = held[source]
    assert [held[place] for place in range(len(sources))] == sources


def test_what_stays_is_not_moved_and_a_cycle_takes_one_move_more() -> None:
    assert moves([0, 1, 2]) == []
    assert moves([0, 0, 1]) == [(2, 1), (1, 0)]
    assert len(moves([1, 2, 0])) == 4
