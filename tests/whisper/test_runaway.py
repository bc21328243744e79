"""The guard acts on loops, and not on speech."""

from __future__ import annotations

import pytest
from whisper.utils import compression_ratio as openais

from whisper_factory.whisper.runaway import compression_ratio, loops, token_budget

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
