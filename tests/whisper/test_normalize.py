"""The word error rate: spellings that are the same, spellings that are not, and the arithmetic."""

from __future__ import annotations

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_factory.whisper.normalize import edit_distance, normalize, spell, word_error_rate, words

SAME = [
    ("Good morning. The train leaves!", "good morning, the train leaves"),
    ("platform two", "platform 2"),
    ("twenty-one years", "21 years"),
    ("one hundred and five", "105"),
    ("a hundred people", "100 people"),
    ("twelve thousand three hundred", "12,300"),
    ("three point zero five percent", "3.05%"),
    ("five dollars", "$5"),
    ("one thousand two hundred dollars", "$1,200"),
    ("half past seven, at seven thirty", "half past 7, at 7:30"),
    ("five pm", "5pm"),
    ("the twenty first of May", "the 21st of May"),
    ("the twelfth and the thirtieth", "the 12th and the 30th"),
    ("I will not, I can not and I do not", "I won't, I cannot and I don't"),
    ("we are, they have, you will", "we’re, they've, you'll"),
    ("it is raining; that is all", "it's raining; that's all"),
    ("it has been cold", "it's been cold"),
    ("let us meet", "let's meet"),
    ("I'm going to", "I am gonna"),
    ("Doctor Smith and Mister Jones", "Dr. Smith & Mr. Jones"),
    ("Missus Brown is okay", "Mrs Brown is OK"),
    ("café", "cafe"),
    ("the dog's bone", "the dogs bone"),
    ("  spaces \n and\tlines ", "spaces and lines"),
    ("", " ... "),
]
DIFFERENT = [
    ("the cat", "a cat"), ("can", "can't"), ("one", "won"), ("fifteen", "50"), ("a hundred", "a thousand"),
    ("he is", "he was"), ("hundred and some", "hundred some"), ("back seat", "backseat"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same_words(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_words(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)


@given(st.text())
def test_normalising_twice_changes_nothing_about_spaces_and_signs(text: str) -> None:
    normal = normalize(text)
    assert normal == " ".join(normal.split())
    assert words(text) == normal.split()
    assert not set(normal) & set(".,!?'\"-_;:")


@pytest.mark.parametrize(("digits", "ordinal", "spelled"), [
    ("0", False, "zero"), ("13", False, "thirteen"), ("40", False, "forty"), ("99", False, "ninety nine"),
    ("300", False, "three hundred"), ("1001", False, "one thousand one"), ("007", False, "zero zero seven"),
    ("999999", False, "nine hundred ninety nine thousand nine hundred ninety nine"),
    ("1234567", False, "one two three four five six seven"), ("9" * 5000, False, " ".join(["nine"] * 5000)),
    ("1", True, "first"), ("2", True, "second"), ("3", True, "third"), ("8", True, "eighth"), ("9", True, "ninth"),
    ("11", True, "eleventh"), ("20", True, "twentieth"), ("35", True, "thirty fifth"), ("100", True, "one hundredth"),
])  # fmt: skip
def test_numbers(digits: str, ordinal: bool, spelled: str) -> None:
    assert spell(digits, ordinal) == spelled


def test_every_number_has_its_own_name() -> None:
    numbers = [*range(2000), *range(2000, 1_000_000, 997)]
    assert len({spell(str(number)) for number in numbers}) == len(numbers)


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("abc")))
def test_edits_are_jiwers(one: list[str], other: list[str]) -> None:
    measured = jiwer.process_words(" ".join(one), " ".join(other))
    assert edit_distance(one, other) == measured.substitutions + measured.insertions + measured.deletions
    assert edit_distance(one, other) == edit_distance(other, one)


def test_edits_of_token_ids() -> None:
    assert edit_distance([], []) == 0
    assert edit_distance([1, 2, 3], []) == 3
    assert edit_distance([50257, 11, 13, 7], [50257, 13, 8, 7, 9]) == 3


def test_word_error_rate_is_over_all_words() -> None:
    assert word_error_rate([("one two three", "1 2 3"), ("four", "five")]) == pytest.approx(1 / 4)
    assert word_error_rate([("stop", "stop stop stop")]) == 2.0
    assert word_error_rate([]) == 0.0
