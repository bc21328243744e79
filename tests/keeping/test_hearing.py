"""Greedy search with a draft, and how far predictions are from each other."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.tiny_model import tiny_weights
from whisper_factory.calibration import forward
from whisper_factory.calibration.worker import as_stored
from whisper_factory.keeping import hearing

EOT = 0
TINY = tiny_weights(seed=3, n_audio_ctx=60)


class Model:
    """Says a text by the last two tokens that it was given, whatever comes before them."""

    def __init__(self, text: Sequence[int]) -> None:
        self.follows = dict(zip(zip([-2, -1, *text], [-1, *text], strict=False), [*text, EOT], strict=True))
        self.asked = 0

    def best(self, tokens: list[int], done: int) -> list[int]:
        self.asked += 1
        known = [-2, -1, *tokens]
        return [self.follows.get((known[place], known[place + 1]), 999) for place in range(done, len(tokens) + 1)]


TEXT = list(range(1, 31))


@pytest.mark.parametrize(("draft", "passes"), [
    (TEXT, 1),
    ([*TEXT[:10], 500, *TEXT[11:]], 2),  # another token
    ([*TEXT[:10], *TEXT[12:]], 4),  # two that the draft has not
    ([*TEXT[:10], 500, 501, *TEXT[10:]], 2),  # two that it has too many
    (TEXT[:20], 11),
    ([], 31),
    ([500] * 40, 31),
])
def test_a_draft_saves_passes_and_changes_nothing(draft: list[int], passes: int) -> None:
    model = Model(TEXT)
    assert hearing.greedy(model.best, EOT, 100, draft) == TEXT
    assert model.asked == passes


def test_any_draft_and_any_limit() -> None:
    rng = random.Random(0)
    for _ in range(200):
        draft = [token if rng.random() < 0.8 else rng.randrange(1, 40) for token in TEXT if rng.random() < 0.9]
        limit = rng.randrange(1, 50)
        assert hearing.greedy(Model(TEXT).best, EOT, limit, draft) == TEXT[:limit]


def test_what_does_not_end_is_stopped_at_the_limit() -> None:
    assert hearing.greedy(lambda tokens, done: [7] * (len(tokens) - done + 1), EOT, 12, TEXT) == [7] * 12


def test_going_on_from_a_block_is_as_encoding() -> None:
    tensors, sizes = as_stored(TINY), TINY.dimensions
    mel = np.random.default_rng(0).standard_normal((80, 80)).astype(np.float32)
    whole = forward.encode(mel, tensors, sizes.n_audio_layer, sizes.n_audio_head)
    seen = hearing.residuals(mel, tensors, sizes)
    assert len(seen) == sizes.n_audio_layer + 1
    for first, x in enumerate(seen):
        before = x.copy()
        assert np.array_equal(hearing.states(x, first, tensors, sizes), whole)
        assert np.array_equal(x, before), "it is gone on from more than once"
    silence = np.ones((60, 128), np.float32)
    assert np.array_equal(hearing.seen(whole, silence, sizes), np.concatenate([whole, silence[-50:]]))
    assert hearing.seen(silence, silence, sizes) is silence


def test_divergence_is_torchs() -> None:
    rng = np.random.default_rng(0)
    one, other = (hearing.log_softmax(rng.standard_normal((5, 40)).astype(np.float32)) for _ in range(2))
    wanted = torch.nn.functional.kl_div(torch.from_numpy(other), torch.from_numpy(one), reduction="sum",
                                        log_target=True)
    assert hearing.divergence(one, other) == pytest.approx(float(wanted), rel=1e-5)
    assert hearing.divergence(one, one) == 0
    assert np.exp(one).sum(axis=1) == pytest.approx(1, abs=1e-6)
