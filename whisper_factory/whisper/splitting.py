"""How GPT-2 splits a text into pieces before bytes are merged: words with the space before them, numbers, signs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Of the text itself; then of its characters' kinds: letters, numbers, a space (s), other white space (w), and others.
CONTRACTION = re.compile(r"'(?:[sdmt]|ll|ve|re)")
PIECE = re.compile(r"s?L+|s?N+|s?o+|[sw]+(?![^sw])|[sw]+")


def pieces(text: str) -> Iterator[str]:
    """The pieces of a text, which joined are the text again."""
    kinds, place = "".join(map(_kind, text)), 0
    while place < len(text):
        found = CONTRACTION.match(text, place) or PIECE.match(kinds, place)
        assert found is not None  # every character has a kind, and every kind is a piece
        yield text[place : found.end()]
        place = found.end()


def _kind(character: str) -> str:
    if character.isspace():
        return "s" if character == " " else "w"
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "o"
