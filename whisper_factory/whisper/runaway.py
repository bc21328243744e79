"""The guard against a decoder that does not stop: it loops, and fills the transcript with one phrase.

Two signs. A window's text is longer than anyone can speak in its time: decoding ends there. Or it compresses
better than speech does: OpenAI's sign and threshold, looked at when decoding is over. Both are reported with the
transcript. The text is changed in one case: decoding had to be stopped, and it was going round in circles then. Of
these the first round stays, and `circles` hears on from there. Who repeats himself and comes to an end is left his
words.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

COMPRESSION_RATIO_LIMIT = 2.4  # OpenAI's transcribe()

# Fast speech has 8 syllables a second, record holders reach 14. With Whisper's vocabularies a syllable of English is
# 0.7 tokens, of German 0.9, Finnish and Chinese 1.0 to 1.2 (article 1 of the Declaration of Human Rights): 4 to 10
# tokens a second when spoken fast. So 14 is what nobody says, and a loop that is not stopped has 224.
TOKENS_PER_SECOND = 14
# Scripts that the vocabulary spells in bytes: Thai, Hindi and Tamil have 2 tokens a syllable, Burmese 8.5.
SPELT_TOKENS_PER_SECOND = 80
SPELT_LANGUAGES = frozenset(
    ("am", "as", "bn", "bo", "gu", "hi", "hy", "ka", "km", "kn", "lo", "ml", "mr", "my", "ne", "pa", "sa", "si", "ta",
     "te", "th", "yi")
)
LEAST_ROUNDS, LEAST_CIRCLING = 3, 12  # rounds, and tokens in all, of what counts as going in circles
LEAST_TOKENS = 16  # whatever the window's length: a number read out, a spelt name


def token_budget(seconds: float, language: str | None = None) -> int:
    """The most tokens that a window may get.

    Args:
        seconds: of audio in the window, without the padding.
        language: its code; None for an English-only model.
    """
    rate = SPELT_TOKENS_PER_SECOND if language in SPELT_LANGUAGES else TOKENS_PER_SECOND
    return LEAST_TOKENS + int(rate * seconds)


def compression_ratio(text: str) -> float:
    """Bytes of a text over its bytes after zlib, as OpenAI's; 0 for an empty text."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data)) if data else 0.0


def loops(text: str) -> bool:
    """Whether a text repeats itself as speech does not."""
    return compression_ratio(text) > COMPRESSION_RATIO_LIMIT


def first_round(tokens: Sequence[int]) -> int:
    """How many tokens there are up to the end of the first round of the circle that they end in; all if they do not.

    The last round may be cut short.
    """
    for period in range(1, len(tokens) // LEAST_ROUNDS + 1):
        start = len(tokens) - period
        while start and tokens[start - 1] == tokens[start - 1 + period]:
            start -= 1
        circling = len(tokens) - start
        if circling >= max(LEAST_ROUNDS * period, LEAST_CIRCLING):
            return start + period
    return len(tokens)
