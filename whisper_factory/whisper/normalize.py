"""Words of a transcript for the word error rate, so that style is no error: case, punctuation, digits, contractions.

This is a small normaliser of our own for English, not OpenAI's: its rates are comparable with each other, not
with published ones. Both sides go through it, so a rule need not be right, only the same for both spellings:
"he'd" becomes "he would" wherever it stands. Years are read as numbers ("1999" is one thousand nine hundred ...),
and British and American spellings stay apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
NUMBER = "|".join([*ONES, *TENS[2:]])
LONGEST = 6  # digits of a number that is spelled; longer ones are read digit by digit

# In this order. Irregular contractions come before the rules that cut endings off.
REWRITES: tuple[tuple[str, str], ...] = (
    (r"\bwon't\b", "will not"),
    (r"\b(?:can't|cannot)\b", "can not"),
    (r"\bshan't\b", "shall not"),
    (r"\blet's\b", "let us"),
    (r"\bgonna\b", "going to"),
    (r"\bwanna\b", "want to"),
    (r"\bgotta\b", "got to"),
    (r"n't\b", " not"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"'d\b", " would"),
    (r"\bi'm\b", "i am"),
    (r"'s (been|got)\b", r" has \1"),
    (r"\b(he|she|it|that|this|there|here|what|where|when|who|how|why)'s\b", r"\1 is"),
    (r"\bmr\b", "mister"),
    (r"\bmrs\b", "missus"),
    (r"\bdr\b", "doctor"),
    (r"\b(?:ok|o\.k\.)(?!\w)", "okay"),
    (r"&", " and "),
    (r"%", " percent "),
    (r"\$\s?([\d.,]*\d)", r"\1 dollars "),
    (r"(?<=\d),(?=\d{3})", ""),  # 12,000
    (r"(?<=\d)\.(?=\d)", " point "),
)
# After punctuation is gone and digits are spelled.
CLOSING: tuple[tuple[str, str], ...] = (
    (r"\ba (?=(?:hundred|thousand)\b)", "one "),
    (rf"\b(hundred|thousand) and (?=(?:{NUMBER})\b)", r"\1 "),
)


def normalize(text: str) -> str:
    """Lower-case words of a text, one space apart."""
    text = unicodedata.normalize("NFKD", text.lower().replace("’", "'").replace("‘", "'"))
    text = re.sub(r"[\u0300-\u036f]", "", text)  # accents
    for pattern, replacement in REWRITES:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"(\d+)(?:(st|nd|rd|th)\b)?", lambda found: f" {spell(found[1], found[2] is not None)} ", text)
    text = re.sub(r"[^\w\s]|_", " ", text.replace("'", ""))
    text = " ".join(text.split())
    for pattern, replacement in CLOSING:
        text = re.sub(pattern, replacement, text)
    return text


def words(text: str) -> list[str]:
    """The normalised words of a text."""
    return normalize(text).split()


def spell(digits: str, ordinal: bool = False) -> str:
    """A number in words: "21" is twenty one, "21" as an ordinal twenty first, "007" zero zero seven."""
    if len(digits) > LONGEST or (len(digits) > 1 and digits.startswith("0")):
        return " ".join(ONES[int(digit)] for digit in digits)
    spelled = _cardinal(int(digits))
    return " ".join([*spelled[:-1], _ordinal(spelled[-1])] if ordinal else spelled)


def _cardinal(number: int) -> list[str]:
    if number < 20:
        return [ONES[number]]
    for unit, name in ((1000, "thousand"), (100, "hundred")):
        if number >= unit:
            rest = number % unit
            return [*_cardinal(number // unit), name, *(_cardinal(rest) if rest else [])]
    return [TENS[number // 10], *([ONES[number % 10]] if number % 10 else [])]


def _ordinal(word: str) -> str:
    return ORDINALS.get(word) or (f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th")


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Least number of insertions, deletions and substitutions that turn `a` into `b`."""
    above = list(range(len(b) + 1))
    for row, left in enumerate(a, 1):
        current = [row]
        for column, right in enumerate(b, 1):
            changed = above[column - 1] + (left != right)
            current.append(min(changed, above[column] + 1, current[-1] + 1))
        above = current
    return above[-1]


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Word errors per word said, over (said, heard) pairs together: 0.05 is 5 %. Above 1 if much is made up."""
    errors = said_words = 0
    for said, heard in pairs:
        reference = words(said)
        errors += edit_distance(reference, words(heard))
        said_words += len(reference)
    return errors / max(1, said_words)
