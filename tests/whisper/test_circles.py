"""A decoder that goes round in circles is heard on from the first round, and the next may not begin there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whisper.model import Whisper

from tests.whisper.test_decoding import FAR, features
from tests.whisper.test_transcribe import noise
from tests.whisper.torch_engine import TorchEngine, TorchUtterance, engine, random_model, tokenizer_of
from whisper_factory.whisper.circles import ATTEMPTS, heard_on
from whisper_factory.whisper.decoding import Decoded, decode
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.transcribe import Transcriber

STEPS = 40
MODEL = random_model(2, eot_bias=12.0)  # comes to an end by itself
TOKENIZER = tokenizer_of(MODEL.dims)
AGAIN = TOKENIZER.ranks.rank(b" again")


class Parrot(TorchUtterance):
    """Says " again" whenever it may, until it has been fed so many tokens in all."""

    def __init__(self, model: Whisper, features: torch.Tensor, until: int) -> None:
        super().__init__(model, features)
        self.until = until

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = super().decode(tokens)
        if self.length < self.until:
            logits[:, AGAIN] += 1000.0
        return logits


class OneByOne(TorchUtterance):
    """Takes no more than a prompt at once, and has a search of its own that cannot go on."""

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        assert tokens.shape[1] <= len(TOKENIZER.prompt())
        return super().decode(tokens)

    def greedy(self, *wanted: object) -> list[tuple[list[int], float]]:
        raise AssertionError("it begins at the beginning")


def circling(beams: int) -> Decoded:
    found, = decode(Parrot(MODEL, features(0, 1), FAR), TOKENIZER, [TOKENIZER.prompt()], [None], STEPS, [FAR], beams)
    assert found.dropped == [AGAIN] * (STEPS - 1)
    return found


def gone_on(encode: Callable[[], TorchUtterance], found: Decoded, beams: int = 1, budget: int = FAR) -> Decoded:
    return heard_on(encode, TOKENIZER, TOKENIZER.prompt(), found, STEPS, budget, beams)


@pytest.mark.parametrize("beams", [1, 3])
def test_another_round_may_not_begin(beams: int) -> None:
    found = gone_on(lambda: TorchUtterance(MODEL, features(0, 1)), circling(beams), beams)
    assert found.tokens[0] == AGAIN
    assert found.tokens[1:2] != [AGAIN]
    assert (found.stopped, found.runaway, found.circles, found.dropped) == ("eot", False, 1, [])
    assert found.text == TOKENIZER.decode(found.tokens).strip()


def test_it_is_openais_answer_after_what_was_heard() -> None:
    fed = [*TOKENIZER.prompt(), AGAIN]  # at once
    wanted, = decode(TorchUtterance(MODEL, features(0, 1)), TOKENIZER, [fed], [None], STEPS - 1, [FAR], barred=AGAIN)
    found = gone_on(lambda: OneByOne(MODEL, features(0, 1)), circling(1))
    assert found.tokens == [AGAIN, *wanted.tokens]
    assert found.avg_logprob == wanted.avg_logprob


def test_an_end_may_follow_at_once() -> None:
    ending = random_model(2, eot_bias=100.0)
    found = gone_on(lambda: TorchUtterance(ending, features(0, 1)), circling(1))
    assert (found.text, found.stopped, found.runaway) == ("again", "eot", False)


def test_a_circle_may_follow_on_a_circle_but_not_for_ever() -> None:
    opened: list[Parrot] = []

    def encode() -> Parrot:
        opened.append(Parrot(MODEL, features(0, 1), FAR))
        return opened[-1]

    found = gone_on(encode, circling(1))
    assert len(opened) == found.circles == ATTEMPTS
    assert all(one.closed for one in opened)
    assert found.runaway
    assert found.dropped
    assert len(found.tokens) + len(found.dropped) <= STEPS


@pytest.mark.parametrize("budget", [1, 2])
def test_no_more_is_said_than_anyone_can(budget: int) -> None:
    found = gone_on(lambda: TorchUtterance(random_model(0), features(0, 1)), circling(1), budget=budget)
    assert len(found.tokens) == budget
    assert found.runaway


def test_who_ends_is_not_heard_again() -> None:
    def encode() -> TorchUtterance:
        raise AssertionError("there was no circle")

    found, = decode(TorchUtterance(MODEL, features(0, 1)), TOKENIZER, [TOKENIZER.prompt()], [None], STEPS, [FAR])
    assert gone_on(encode, found) is found


def test_windows_of_a_batch_are_heard_on_by_themselves() -> None:
    class Repeating(TorchEngine):
        """Says " again" in batches, and what there is alone."""

        def encode(self, mel: NDArray[np.float32]) -> TorchUtterance:
            given = super().encode(mel)
            return Parrot(self.model, given.features, FAR) if len(mel) > 1 else given

    made = engine(2, eot_bias=12.0, max_batch_size=2)
    about = Transcriber(Repeating(made.model, made.spec), TOKENIZER)
    found = about.transcribe([noise(2, 0), noise(3, 1)], Options(max_new_tokens=STEPS))
    assert [one.windows[0].decoded.circles for one in found] == [1, 1]
    assert [one.tokens[0] for one in found] == [AGAIN, AGAIN]
    said = "it went round in circles, and was heard on after the first round; words may be missing"
    assert [one.warnings for one in found] == [[f"0.0 to {one.seconds:.1f} s: {said}"] for one in found]
