"""Engines against OpenAI's own implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whisper.model import Whisper

from tests.backends.onnxruntime.making import respecified
from tests.backends.onnxruntime.reference import encode_short, next_logits, openai_model
from whisper_factory import clips
from whisper_factory.backends import onnxruntime
from whisper_factory.backends.onnx_graph.anchor import SILENCE
from whisper_factory.backends.onnxruntime.session import OnnxRuntimeEngine
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.logmel import log_mel

PROMPT = np.array([50257, 50362])  # <|startoftranscript|><|notimestamps|>
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def model(real_checkpoint: Path) -> Whisper:
    return openai_model(real_checkpoint)


@pytest.fixture(scope="module")
def engine(real_engine: Path) -> OnnxRuntimeEngine:
    return onnxruntime.load(real_engine)


def speech_and_noise(frames: int) -> NDArray[np.float32]:
    """Log-mel windows of the bundled sample and of white noise, [2, 80, frames]."""
    noise = 0.1 * np.random.default_rng(5).standard_normal(160 * frames).astype(np.float32)
    audio = read_audio(Path(clips.__file__).with_name("sample.flac"))
    return np.stack([log_mel(audio, 80, frames), log_mel(noise, 80, frames)])


def test_logits_of_a_whole_window(engine: OnnxRuntimeEngine, model: Whisper) -> None:
    mel = speech_and_noise(3000)
    utterance = engine.encode(mel)
    tokens = np.tile(PROMPT, (2, 1))
    steps = [utterance.decode(tokens)]
    for _ in range(10):
        tokens = np.concatenate([tokens, steps[-1].argmax(axis=1)[:, None]], axis=1)
        steps.append(utterance.decode(tokens[:, -1:]))
    expected = model(torch.from_numpy(mel), torch.from_numpy(tokens)).numpy()[:, 1:]
    np.testing.assert_allclose(np.stack(steps, axis=1), expected, atol=TOLERANCE, rtol=0)
    assert np.array_equal(tokens[:, 2:], expected[:, :-1].argmax(axis=2))
    assert len(set(tokens[0, 2:].tolist())) > 5, "the clip has speech, so the words should differ"


def test_short_window_ends_in_the_anchor(engine: OnnxRuntimeEngine, model: Whisper) -> None:
    silent = model.encoder(torch.full((1, 80, 3000), SILENCE))[:, -50:].numpy()
    mel = speech_and_noise(750)
    expected = encode_short(model, mel, silent)
    states = engine.opened.encoder.run(["encoder_states"], {"mel": mel})[0]
    assert states.shape == (2, 375 + 50, 384)
    np.testing.assert_allclose(states, expected.numpy(), atol=TOLERANCE, rtol=0)
    logits = engine.encode(mel).decode(np.tile(PROMPT, (2, 1)))
    np.testing.assert_allclose(logits, next_logits(model, np.tile(PROMPT, (2, 1)), expected), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("precision", ["int8", "int4", "mixed"])
def test_anchor_is_the_same_from_other_kernels(
    checkpoints: Callable[[str], Path], engines: Callable[[str], Path], precision: str
) -> None:
    """torch's kernels stand for another machine's: what a lock promises across machines holds."""
    model = openai_model(checkpoints(precision))
    silent = model.encoder(torch.full((1, 80, 3000), SILENCE))[0, -50:].numpy()
    anchor = np.fromfile(engines(precision) / "end_anchor.bin", np.float32).reshape(50, 128)
    np.testing.assert_allclose(anchor, silent, atol=1e-3, rtol=0)


def test_anchor_is_left_out_of_whole_windows_only(engine: OnnxRuntimeEngine) -> None:
    for frames, length in ((2998, 1499 + 50), (3000, 1500), (2, 1 + 50)):
        mel = np.full((1, 80, frames), SILENCE, np.float32)
        assert engine.opened.encoder.run(["encoder_states"], {"mel": mel})[0].shape == (1, length, 384)


def test_silence_is_what_the_log_mel_of_silence_is() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(48_000, np.float32), 80, 300), SILENCE, rtol=1e-6)


def test_beams(real_engine: Path, model: Whisper, tmp_path: Path) -> None:
    """Rows that are repeated, exchanged, dropped, and begun again follow their own past and their own window."""
    mel = speech_and_noise(400)
    anchor = np.fromfile(real_engine / "end_anchor.bin", np.float32).reshape(50, 384)
    states, tokens = encode_short(model, mel, anchor), np.tile(PROMPT, (2, 1))
    utterances = [
        onnxruntime.load(respecified(real_engine, tmp_path / mode, mode=mode, page=3, max_input_len=500)).encode(mel)
        for mode in ("contiguous", "paged")
    ]

    def follow(rows: list[int], *words: int) -> None:
        nonlocal tokens, states
        states = states[rows]
        tokens = np.concatenate([tokens[rows], np.array(words)[:, None]], axis=1)
        expected = next_logits(model, tokens, states)
        for utterance in utterances:
            utterance.select(np.array(rows))
            np.testing.assert_allclose(utterance.decode(tokens[:, -1:]), expected, atol=TOLERANCE, rtol=0)

    for utterance in utterances:
        utterance.decode(tokens)
    follow([0, 0, 0, 1, 1, 1], 11, 12, 13, 14, 15, 16)
    follow([0, 1, 2, 3, 4, 5], 21, 22, 23, 24, 25, 26)
    follow([2, 2, 0, 5, 3, 4], 31, 32, 33, 34, 35, 36)
    follow([3, 5, 5], 41, 42, 43)  # the first window is done
    follow([1], 51)
    for utterance in utterances:
        utterance.rewind()
        again = np.array([[50257, 1000, 2000]])
        expected = next_logits(model, again, states)
        np.testing.assert_allclose(utterance.decode(again), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("precision", "limit"), [
    ("float16", 1e-3), ("int8", 0.1), ("int4", 0.1), ("int4_g128", 0.1), ("int4_g32", 0.1), ("mixed", 0.1)])
def test_other_precisions(checkpoints: Callable[[str], Path], engines: Callable[[str], Path], precision: str,
                          limit: float) -> None:
    """Engines of integers against OpenAI's model of the dequantised weights: they differ by what accuracy level 4
    does to activations, and by the 8-bit head, and not by a misplaced nibble or scale."""
    mel = speech_and_noise(300)
    model, engine = openai_model(checkpoints(precision)), onnxruntime.load(engines(precision))
    anchor = np.fromfile(engines(precision) / "end_anchor.bin", np.float32).reshape(50, 128)
    states = encode_short(model, mel, anchor)
    utterance = engine.encode(mel)
    tokens = np.tile(PROMPT, (2, 1))
    logits = utterance.decode(tokens)
    for word in (17, 170, 1700):
        expected = next_logits(model, tokens, states)
        error = np.abs(logits - expected).mean() / expected.std()
        assert error < limit
        tokens = np.concatenate([tokens, np.full((2, 1), word)], axis=1)
        logits = utterance.decode(tokens[:, -1:])
