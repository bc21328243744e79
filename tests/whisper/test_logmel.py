"""The log-mel spectrogram, held against OpenAI's own on speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_factory import clips
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.logmel import log_mel, log_mels, mel_filters

SPEECH = np.concatenate([read_audio(clip.path) for clip in clips.bundled("full")])
TOLERANCE = 1e-4  # of values that span about 2; float32 transforms of silence next to speech differ by half of this


def openai(audio: np.ndarray, n_mels: int, frames: int) -> np.ndarray:
    """OpenAI's spectrogram of audio padded or cut to a window."""
    window = whisper.pad_or_trim(audio, frames * 160)
    return whisper.log_mel_spectrogram(window, n_mels).numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_openais(n_mels: int) -> None:
    with np.load(Path(whisper.__file__).parent / "assets" / "mel_filters.npz") as file:
        expected = file[f"mel_{n_mels}"]
    assert mel_filters(n_mels).dtype == np.float32
    np.testing.assert_allclose(mel_filters(n_mels), expected, atol=1e-6, rtol=0)
    assert mel_filters(n_mels) is mel_filters(n_mels)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("frames", [3000, 1500, 750, 2])
@pytest.mark.parametrize("clip", clips.bundled("quick")[:4] + clips.bundled("full")[-1:], ids=lambda clip: clip.name)
def test_speech_is_openais(n_mels: int, frames: int, clip: clips.Clip) -> None:
    audio = read_audio(clip.path)
    heard = log_mel(audio, n_mels, frames)
    assert heard.dtype == np.float32
    assert heard.shape == (n_mels, frames)
    np.testing.assert_allclose(heard, openai(audio, n_mels, frames), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("beside", [-481, -201, -200, -199, -161, -160, -41, -40, -39, -1, 0, 1, 500])
def test_audio_up_to_the_windows_end_is_reflected_there(beside: int) -> None:
    audio = SPEECH[50_000 : 50_000 + 750 * 160 + beside]
    np.testing.assert_allclose(log_mel(audio, 80, 750), openai(audio, 80, 750), atol=TOLERANCE, rtol=0)


@given(st.integers(0, 4000), st.integers(0, len(SPEECH) - 4000))
@settings(deadline=None, max_examples=60)
def test_audio_of_any_length_is_openais(samples: int, start: int) -> None:
    audio = SPEECH[start : start + samples]
    np.testing.assert_allclose(log_mel(audio, 80, 600), openai(audio, 80, 600), atol=TOLERANCE, rtol=0)


def test_a_single_sample_and_none() -> None:
    for audio in (np.array([0.9], np.float32), np.zeros(0, np.float32), np.zeros(16_000, np.float32)):
        np.testing.assert_allclose(log_mel(audio, 80, 3000), openai(audio, 80, 3000), atol=TOLERANCE, rtol=0)


def test_other_float_types_are_the_same_audio() -> None:
    audio = SPEECH[:32_000]
    np.testing.assert_array_equal(log_mel(audio.astype(np.float64), 80, 750), log_mel(audio, 80, 750))


def test_the_caller_keeps_the_audio() -> None:
    audio = SPEECH[:32_000].copy()
    log_mel(audio, 80, 750)
    np.testing.assert_array_equal(audio, SPEECH[:32_000])


def test_several_clips_are_each_as_alone() -> None:
    several = [SPEECH[:32_000], SPEECH[8_000:20_000], np.zeros(0, np.float32)]
    alone = [log_mel(audio, 80, 750) for audio in several]
    np.testing.assert_array_equal(log_mels(several, 80, 750), alone)
