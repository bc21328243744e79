"""The forward pass, held against openai-whisper's own model."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from tests.real_weights import TINY_EN, packaged
from tests.tiny_model import tiny_weights
from whisper_factory import clips
from whisper_factory.calibration import forward
from whisper_factory.calibration.worker import as_stored
from whisper_factory.whisper import readers
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.logmel import log_mel
from whisper_factory.whisper.readers import Weights

TOKENS = np.array([50257, 50362, 4599, 3329, 13, 383, 4512])


def openais(weights: Weights) -> Whisper:
    model = Whisper(ModelDimensions(**asdict(weights.dimensions))).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in as_stored(weights).items()}, strict=False)
    return model


@pytest.mark.parametrize(("weights", "tolerance"), [
    (tiny_weights(seed=3, n_audio_ctx=200), 1e-4),
    (readers.read(packaged(TINY_EN).parent, "ctranslate2"), 1e-3),
], ids=["random", "tiny.en"])
def test_states_and_logits_are_openais(weights: Weights, tolerance: float) -> None:
    sizes, tensors = weights.dimensions, as_stored(weights)
    mel = log_mel(read_audio(clips.bundled("quick")[0].path), sizes.n_mels, 2 * sizes.n_audio_ctx)
    states = forward.encode(mel, tensors, sizes.n_audio_layer, sizes.n_audio_head)
    cross = forward.cross_keys_values(states, tensors, sizes.n_text_layer)
    logits = forward.decode(TOKENS, cross, tensors, sizes.n_text_head) @ tensors["decoder.token_embedding.weight"].T
    model = openais(weights)
    with torch.no_grad():
        wanted = model.encoder(torch.tensor(mel)[None])
        wanted_logits = model.decoder(torch.tensor(TOKENS)[None], wanted)
    np.testing.assert_allclose(states, wanted[0].numpy(), atol=tolerance)
    np.testing.assert_allclose(logits, wanted_logits[0].numpy(), atol=tolerance)


def test_gelu_in_both_tails() -> None:
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.tensor(x, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(forward.gelu(x.copy()), exact, atol=1e-6)


def test_gelu_makes_nothing_whose_products_are_subnormal() -> None:
    made = forward.gelu(np.linspace(-30, 30, 100_001, dtype=np.float32))
    assert np.square(made[made != 0]).min() >= np.finfo(np.float32).tiny
    assert (made == 0).any()


@pytest.mark.parametrize("scores", [1, 1 << 20])  # a head by itself, and both together
@pytest.mark.parametrize("loud", [1, 100])  # 100: exp of a score is more than float32 holds
def test_attention_in_several_pieces_is_attention(monkeypatch: pytest.MonkeyPatch, loud: int, scores: int) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(forward, "SCORES", scores)
    q, k, v = rng.standard_normal((3, forward.QUERIES + 30, 8)).astype(np.float32)
    q *= loud
    for causal in (False, True):
        wanted = torch.nn.functional.scaled_dot_product_attention(
            *(torch.tensor(part).reshape(1, -1, 2, 4).transpose(1, 2) for part in (q, k, v)), is_causal=causal)
        found = forward.attention(q, k, v, 2, causal)
        np.testing.assert_allclose(found, wanted.transpose(1, 2).reshape(found.shape).numpy(), atol=1e-5)
