"""Whether two ways of hearing differ: intervals, chances, and many comparisons at once."""

from __future__ import annotations

import pytest
from paired import chance, difference, holm

SAID = ["one two three four five"] * 40
GROUPS = [f"sentence {number // 2}" for number in range(40)]  # two recordings of each


def wrong(places: list[int], words: int = 1) -> list[str]:
    """What was heard, with words missing in these recordings."""
    return [" ".join(text.split()[words:]) if place in places else text for place, text in enumerate(SAID)]


def test_four_sentences_that_all_got_worse_are_no_proof() -> None:
    """Of 16 ways that four coins fall, two are all alike: the interval says otherwise."""
    worse = wrong([0, 10, 20, 30])
    assert difference(SAID, SAID, worse, GROUPS).low > 0
    assert chance(SAID, SAID, worse, GROUPS) == pytest.approx(2 / 16, abs=0.005)


def test_recordings_of_one_sentence_are_one_witness() -> None:
    assert chance(SAID, SAID, wrong([0, 1, 2, 3]), GROUPS) == pytest.approx(0.5, abs=0.01)


def test_what_differs_everywhere_is_no_chance() -> None:
    assert chance(SAID, SAID, wrong(list(range(40))), GROUPS) < 0.001


def test_the_same_is_always_chance() -> None:
    assert chance(SAID, wrong([3]), wrong([3]), GROUPS) == 1
    assert chance(SAID, wrong([0, 2]), wrong([4, 6]), GROUPS) == 1  # as many words the one way as the other


def test_holm() -> None:
    """As in Holm's paper: the smallest times how many there are, the next times one fewer, never less than before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
