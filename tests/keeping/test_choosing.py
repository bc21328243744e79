"""The choice, with models that only say how many errors they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from tests.tiny_model import tiny_dimensions
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import GateMissed
from whisper_factory.keeping import choosing
from whisper_factory.memory import weight_bytes
from whisper_factory.quantization.mixed import Candidate

NAMES = ["a", "b", "c", "d", "e", "f", "g"]
BYTES: dict[Candidate, int] = {(name,): 100 for name in NAMES}
HARMS = dict(zip(NAMES, [1.0, 7.0, 3.0, 6.0, 2.0, 5.0, 4.0], strict=True))
BY_HARM = ["b", "d", "f", "g", "c", "e", "a"]
EXACT = 50


class Fake:
    """Of 1000 words in ten clips; 50 are wrong in the exact model, and as many more as `more` says."""

    words, clips = 1000, 10

    def __init__(self, more: Callable[[int], int]) -> None:
        self.more, self.asked, self.weighed = more, list[list[str]](), 0

    def errors(self, kept: Sequence[str] | None) -> int:
        if kept is None:
            return EXACT
        self.asked.append(list(kept))
        return EXACT + self.more(len(kept))

    def harms(self, candidates: Sequence[Candidate]) -> list[float]:
        self.weighed += 1
        return [sum(HARMS[layer] for layer in candidate) for candidate in candidates]


@pytest.mark.parametrize("needed", range(1, 8))
def test_the_fewest_most_harmful_layers_are_kept_where_each_one_helps(needed: int) -> None:
    fake = Fake(lambda kept: 0 if kept >= needed else 20)
    found = choosing.choose(fake, BYTES, 1.0)
    assert set(found.kept) == set(BY_HARM[:needed])
    assert list(found.kept) == sorted(found.kept), "in the model's order"
    assert found.about["bytes"] == 100 * needed
    assert found.about["bytes_of_all"] == 700
    assert [one["layers"] for one in found.about["order"]] == [[name] for name in BY_HARM]
    assert len(fake.asked) <= 2 + choosing.halvings(7)
    assert len({len(kept) for kept in fake.asked}) == len(fake.asked), "nothing is tried twice"


def test_errors_that_rise_and_fall_give_a_count_that_holds_where_one_less_does_not() -> None:
    more = {0: 30, 1: 5, 2: 25, 3: 25, 4: 8, 5: 12, 6: 9, 7: 3}
    found = choosing.choose(Fake(more.__getitem__), BYTES, 1.0)
    tried = {one["kept"]: one["wer"] for one in found.about["tried"]}
    count = len(found.kept)
    assert tried[count] <= 6.0 < tried[count - 1]
    assert found.about["wer"] == {"exact": 5.0, "none_kept": 8.0, "chosen": tried[count]}


def test_none_is_kept_and_none_weighed_where_four_bits_are_good_enough() -> None:
    fake = Fake(lambda kept: 10)
    found = choosing.choose(fake, BYTES, 1.0)
    assert found.kept == ()
    assert found.about["order"] == []
    assert found.about["bytes"] == fake.weighed == 0
    assert fake.asked == [[]]


def test_the_budget_is_held_to_the_word() -> None:
    assert choosing.choose(Fake(lambda kept: 10), BYTES, 1.0).kept == ()
    assert len(choosing.choose(Fake(lambda kept: 11 - kept), BYTES, 1.0).kept) == 1
    assert choosing.choose(Fake(lambda kept: -5), BYTES, 0.01).kept == ()


def test_a_budget_that_eight_bits_cannot_hold_is_a_gate_missed_before_anything_is_weighed() -> None:
    fake = Fake(lambda kept: 18)
    with pytest.raises(GateMissed) as caught:
        choosing.choose(fake, BYTES, 0.5)
    said = str(caught.value)
    assert said.startswith("precision.max_wer_delta=0.5 cannot be held: with every layer at 8 bits the word error rate "
                           "is 6.80 %, 1.80 points over the exact model's, on 10 clips of 1000 words; ")
    assert "\n" not in said
    assert fake.weighed == 0


def test_harm_counts_for_its_bytes_and_ties_stay_in_the_models_order() -> None:
    sizes = {**BYTES, ("b",): 1000, ("d",): 600, ("f",): 500, ("g",): 400, ("c",): 300, ("e",): 200}
    found = choosing.choose(Fake(lambda kept: 0 if kept >= 6 else 20), sizes, 1.0)
    assert [one["layers"] for one in found.about["order"]] == [["a"], ["c"], ["d"], ["e"], ["f"], ["g"], ["b"]]


def test_what_is_chosen_is_plain_data() -> None:
    about = choosing.choose(Fake(lambda kept: 0 if kept >= 2 else 20), BYTES, 1.0).about
    assert json.loads(json.dumps(about)) == about


@pytest.mark.parametrize("most", range(1, 40))
def test_halving_tries_no_more_than_it_says(most: int) -> None:
    for first in range(1, most + 1):
        tried: list[int] = []

        def holds(count: int, first: int = first, tried: list[int] = tried) -> bool:
            tried.append(count)
            return count >= first

        assert choosing.shortest(holds, most) == first
        assert len(tried) <= choosing.halvings(most)


@pytest.mark.parametrize("group_size", [0, 32, 128])
def test_bytes_are_those_of_a_checkpoint(group_size: int) -> None:
    sizes = tiny_dimensions()
    precision = Precision("int4_g32", 4, "float32", group_size)  # float32: as wide as a checkpoint's scales
    every = choosing.bytes_of(sizes, precision)
    for chosen in (list(every)[:1], list(every)):
        kept = tuple(layer for candidate in chosen for layer in candidate)
        mixed = Precision("int4_g32", 4, "float32", group_size, kept)
        more = sum(weight_bytes(sizes, mixed).values()) - sum(weight_bytes(sizes, precision).values())
        assert sum(every[candidate] for candidate in chosen) == more
