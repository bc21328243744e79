"""The parts of the beam search that a comparison with openai-whisper cannot single out."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_factory.whisper.beam import Beams, most_probable

EOT = 9


def scores(values: list[list[float]]) -> np.ndarray:
    return np.asarray(values, np.float32)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), count=st.integers(2, 6),
       vocabulary=st.sampled_from([600, 1024, 1337]), levels=st.sampled_from([2, 5, 1000]))
@settings(max_examples=60, deadline=None)
def test_the_most_probable_are_found(seed: int, rows: int, count: int, vocabulary: int, levels: int) -> None:
    """Against sorting everything, ties included: the lower token comes first."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, levels, (rows, vocabulary)).astype(np.float32)
    logits[:, rng.integers(0, vocabulary, vocabulary // 3)] = -np.inf
    order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    exact = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    tokens, logprobs = most_probable(logits, count)
    np.testing.assert_array_equal(tokens, order)
    np.testing.assert_allclose(logprobs, np.take_along_axis(exact, order, axis=1), rtol=1e-5, atol=1e-5)


def test_where_nearly_everything_is_forbidden() -> None:
    logits = np.full((1, 2000), -np.inf, np.float32)
    logits[0, [5, 1999]] = [1.0, 2.0]
    tokens, logprobs = most_probable(logits, 4)
    assert tokens[0, :2].tolist() == [1999, 5]
    assert np.isneginf(logprobs[0, 2:]).all()


def test_choosing_costs_a_fraction_of_sorting() -> None:
    """Measured: 0.5 ms to 15, which is more than a step of the decoder takes."""
    logits = np.random.default_rng(0).standard_normal((4, 51864), dtype=np.float32)
    chosen, sorted_ = [], []
    for _ in range(20):  # in turns, for a machine that is busy now and then
        copy = logits.copy()
        start = time.perf_counter()
        most_probable(copy, 5)
        chosen.append(time.perf_counter() - start)
        start = time.perf_counter()
        np.argsort(-logits, axis=1, kind="stable")
        sorted_.append(time.perf_counter() - start)
    assert min(chosen) < min(sorted_) / 4


def test_beams_keep_the_best_and_set_aside_what_ended() -> None:
    search = Beams(2, EOT)
    assert search.advance(np.asarray([[1, 2, 3]]), scores([[-1, -2, -3]])) == [0, 0]
    assert search.beams == [(1,), (2,)]
    kept = search.advance(np.asarray([[EOT, 4, 5], [EOT, 6, 7]]), scores([[-0.1, -3, -4], [-0.2, -0.3, -9]]))
    # ranked: 1,eot (-1.1); 2,eot (-2.2); 2,6 (-2.3); 1,4 (-4)
    assert kept == [1, 0]
    assert search.beams == [(2, 6), (1, 4)]
    assert search.complete
    best = search.result()
    assert (best.tokens, best.ended) == ([1], True)  # -1.1 / 1 against -2.2 / 1


def test_an_end_ranked_below_the_last_beam_is_not_kept() -> None:
    search = Beams(1, EOT)
    search.advance(np.asarray([[1, 2]]), scores([[-1, -2]]))
    search.advance(np.asarray([[3, EOT]]), scores([[-1, -2]]))
    assert not search.complete
    assert search.result().ended is False


def test_longer_sequences_are_not_punished() -> None:
    """The score is divided by the length: -3 over 4 tokens beats -1 over 1."""
    search = Beams(2, EOT)
    search.advance(np.asarray([[1, 2, 3]]), scores([[-0.9, -1.0, -9]]))
    search.advance(np.asarray([[EOT, 4, 5], [6, 7, 8]]), scores([[-0.1, -0.2, -9], [-9, -9, -9]]))
    assert search.result().tokens == [1, 4]  # unfinished, -1.1 / 2 against -1.0 / 1


@pytest.mark.parametrize("width", [1, 3])
def test_ties_go_to_the_first(width: int) -> None:
    search = Beams(width, EOT)
    assert search.advance(np.arange(width + 1)[None], np.full((1, width + 1), -1, np.float32)) == [0] * width
    assert search.beams == [(token,) for token in range(width)]
