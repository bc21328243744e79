"""Windows that wait for memory: what is heard in them is what they are heard to say alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.whisper.torch_engine import POSITIONS, ShortOfMemory, TorchUtterance, random_model, tokenizer_of
from whisper_factory.errors import UserError
from whisper_factory.whisper.decoding import decode
from whisper_factory.whisper.search import places_to_keep

torch.set_num_threads(1)
STEPS = 24
MODEL = random_model(2, eot_bias=10.0)
TOKENIZER = tokenizer_of(MODEL.dims)


def features(seed: int, windows: int) -> torch.Tensor:
    return 2 * torch.randn((windows, POSITIONS, 32), generator=torch.Generator().manual_seed(seed))


def heard(utterance: TorchUtterance, beams: int) -> list[tuple[list[int], str]]:
    """Tokens, and why they end."""
    count = len(utterance.features)
    found = decode(utterance, TOKENIZER, [TOKENIZER.prompt()] * count, [None] * count, STEPS, [STEPS] * count, beams)
    return [(result.tokens, result.stopped) for result in found]


def needed(windows: int, beams: int, page: int) -> int:
    """Pages of so many windows at their longest: the prompt and all tokens but the last."""
    return windows * beams * -(-(len(TOKENIZER.prompt()) + STEPS - 1) // page)


@given(seed=st.integers(0, 20), windows=st.integers(1, 8), beams=st.sampled_from([1, 1, 3]),
       page=st.sampled_from([1, 4, 7, 64]), share=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_what_waits_is_heard_as_if_it_had_not(seed: int, windows: int, beams: int, page: int, share: float) -> None:
    """With any pool that is enough for one window; or it is said that none can go on, which is never so for one."""
    least = needed(1, beams, page)
    pool = round(least + share * (needed(windows, beams, page) - least))
    mel, state = features(seed, windows), [pool, page, pool]
    utterance = ShortOfMemory(MODEL, mel, state)
    try:
        assert heard(utterance, beams) == heard(TorchUtterance(MODEL, mel), beams)
    except UserError:
        assert windows > 1
        assert state[2] < beams, "less than a window's next page was left"
    assert state[0] == pool, "everything was given back"
    assert all(part.closed for part in utterance.parts)


@pytest.mark.parametrize("beams", [1, 3])
def test_windows_do_wait(beams: int) -> None:
    """Twelve pages of four tokens: eight windows begin, four go on."""
    mel, state = features(5, 8), [12 * beams, 4, 12 * beams]
    utterance = ShortOfMemory(MODEL, mel, state)
    assert heard(utterance, beams) == heard(TorchUtterance(MODEL, mel), beams)
    assert [part.rows_decoded[0] for part in utterance.parts][:2] == [8, 4 * beams]
    assert state[0] == 12 * beams


def test_from_the_first_token_on() -> None:
    """With pages for the beginnings of three windows of eight, the others begin when those have ended."""
    mel = features(3, 8)
    state = [3, 64, 3]
    utterance = ShortOfMemory(MODEL, mel, state)
    assert heard(utterance, 1) == heard(TorchUtterance(MODEL, mel), 1)
    assert [part.rows_decoded[0] for part in utterance.parts] == [3, 3, 2]


@pytest.mark.parametrize("beams", [1, 3])
def test_where_none_can_go_on_all_is_given_back(beams: int) -> None:
    """Four windows begin, two go on to their second page, and nothing is left for a third."""
    pool = beams * 6
    state = [pool, 4, pool]
    utterance = ShortOfMemory(random_model(0), features(0, 4), state)  # never ends by itself
    with pytest.raises(UserError, match="full"):
        heard(utterance, beams)
    assert len(utterance.parts) > 1
    assert all(part.closed for part in utterance.parts)
    assert state[0] == pool


def test_windows_that_are_over_give_way() -> None:
    """Seven of eight windows have ended long ago, and with them went their pages."""
    mel = features(2, 8)
    plain = heard(TorchUtterance(MODEL, mel), 1)
    lengths = sorted(len(tokens) for tokens, _ in plain)
    assert lengths[0] < lengths[-1] - 8
    state = [30, 2, 30]  # seven windows at their longest need 91
    utterance = ShortOfMemory(MODEL, mel, state)
    assert heard(utterance, 1) == plain
    assert len(utterance.parts) == 1, "none had to wait"


@pytest.mark.parametrize("beams", [1, 3])
def test_windows_that_are_over_leave_at_once(beams: int) -> None:
    """No row of theirs is decoded once they are over: with one sequence each, for a token each."""
    utterance = TorchUtterance(MODEL, features(2, 8))
    lengths = [len(tokens) + (stopped == "eot") for tokens, stopped in heard(utterance, beams)]
    assert utterance.rows_decoded[0] == 8
    if beams == 1:
        assert utterance.rows_decoded == [sum(length > step for length in lengths) for step in range(max(lengths))]
    later = utterance.rows_decoded[1:]
    assert later == sorted(later, reverse=True)
    assert len(set(later)) > 3, "they end one by one"


def test_the_last_windows_take_the_places_of_those_that_are_over() -> None:
    for over, kept in (([0, 0, 0], [0, 1, 2]), ([0, 1, 0], [0, 2]), ([1, 1, 0], [2]), ([0, 0, 1, 1], [0, 1]),
                       ([1, 0, 1, 0, 0], [4, 1, 3]), ([1, 0, 0, 1, 1, 0, 1], [5, 1, 2])):
        assert places_to_keep(np.asarray(over, bool)) == kept
