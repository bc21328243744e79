"""The guard acts on loops, and not on speech."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisper.utils import compression_ratio as openais

from whisper_factory.whisper.runaway import compression_ratio, first_round, loops, token_budget

SPEECH = ("All human beings are born free and equal in dignity and rights. They are endowed with reason and "
          "conscience and should act towards one another in a spirit of brotherhood.")


@pytest.mark.parametrize("text", ["a", SPEECH, "again and " * 30, "日本語" * 9])
def test_the_ratio_is_openais(text: str) -> None:
    assert compression_ratio(text) == openais(text)


def test_an_empty_text_does_not_loop() -> None:
    assert compression_ratio("") == 0.0
    assert not loops("")


def test_loops_are_told_from_speech() -> None:
    assert loops("Thank you. " * 20)
    assert not loops(SPEECH)


def test_fast_speech_fits_the_budget() -> None:
    """English at 14 syllables a second, faster than records: 50 syllables, 34 tokens, in 3.6 s."""
    assert token_budget(50 / 14) > 1.5 * 34
    assert token_budget(0.0) == 16


def test_the_budget_is_far_below_a_loop() -> None:
    assert token_budget(3.0) <= 224 / 3


def test_scripts_spelt_in_bytes_get_more() -> None:
    """Burmese has 8.5 tokens a syllable: 68 a second when spoken fast."""
    assert token_budget(2.0, "my") > 2 * 68
    assert token_budget(2.0, "ja") == token_budget(2.0, "en") == token_budget(2.0)


@pytest.mark.parametrize(("tokens", "kept"), [
    ([1, 2, *[3] * 12], 3),
    ([1, 2, *[3] * 11], 13),  # too short to tell
    ([1, *[2, 3, 4, 5] * 3], 5),
    ([1, *[2, 3, 4, 5] * 3, 2, 3], 5),  # the last round is cut short
    ([1, *[2, 3, 4, 5, 6, 7, 8] * 2, 2], 16),  # said twice
    ([*[3] * 40, 4], 41),  # it found out of the circle
    ([5, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1], 3),
    ([], 0),
])
def test_of_a_circle_the_first_round_stays(tokens: list[int], kept: int) -> None:
    assert first_round(tokens) == kept


@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), min_size=1, max_size=8),
       st.integers(3, 30), st.integers(0, 7))
def test_what_is_cut_says_nothing_new(before: list[int], again: list[int], rounds: int, rest: int) -> None:
    """Whatever comes before, however far its last round got: what stays, gone on with round and round, is the whole."""
    tokens = [*before, *again * rounds, *again[: rest % len(again)]]
    kept = first_round(tokens)
    if rounds * len(again) >= 12:
        assert kept <= len(before) + len(again)
    if kept < len(tokens):
        period = next(period for period in range(1, kept + 1)
                      if all(tokens[at] == tokens[at - period] for at in range(kept, len(tokens))))
        assert len(tokens) - kept >= 2 * period


@given(st.lists(st.integers(0, 3), max_size=40))
def test_tokens_are_cut_but_once(tokens: list[int]) -> None:
    kept = tokens[: first_round(tokens)]
    assert kept == tokens[: len(kept)]
    assert len(kept) >= min(len(tokens), 1)
