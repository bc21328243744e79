"""Reading audio: rates, channels and formats that agree, and one line for everything that is not audio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisper_factory import clips
from whisper_factory.errors import UserError
from whisper_factory.whisper.audio import duration, read_audio

TONE = 440.0


def tone(rate: int, seconds: float = 1.0) -> np.ndarray:
    """A sine at half of full scale, float64 [n]."""
    return 0.5 * np.sin(2 * np.pi * TONE * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("container", ["wav", "flac"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_16_khz_is_read_as_it_is(tmp_path: Path, container: str, subtype: str) -> None:
    path = tmp_path / f"tone.{container}"
    soundfile.write(path, tone(16_000), 16_000, subtype=subtype)
    audio = read_audio(path)
    assert audio.dtype == np.float32
    assert audio.shape == (16_000,)
    np.testing.assert_allclose(audio, tone(16_000), atol=1 / 32768)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_rate_and_channel_count_is_the_same_tone(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.tile(tone(rate)[:, None], channels), rate)
    audio = read_audio(path)
    assert abs(len(audio) - 16_000) <= 1
    inside = slice(800, 15_200)  # the filter rings at both ends
    np.testing.assert_allclose(audio[inside], tone(16_000)[inside], atol=2e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1), 16_000)
    np.testing.assert_allclose(read_audio(path), 0.125, atol=1e-4)


def test_floats_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([3.0, -3.0, 0.5]), 16_000, subtype="FLOAT")
    assert read_audio(path).tolist() == [1.0, -1.0, 0.5]


def test_duration_is_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(44_100, 1.5), 44_100)
    assert duration(path) == pytest.approx(1.5)


def unfit(tmp_path: Path, kind: str) -> Path:
    """A path that holds no speech, in one of the ways that happen."""
    path = tmp_path / f"{kind}.wav"
    samples = {"no frames": [], "nan": [0.0, np.nan], "infinite": [np.inf, 0.0]}
    if kind in samples:
        soundfile.write(path, np.array(samples[kind], dtype=np.float32), 16_000, subtype="FLOAT")
    elif kind == "below a sample":
        soundfile.write(path, np.array([0.5]), 48_000)
    elif kind == "directory":
        path.mkdir()
    elif kind == "no bytes":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("This is not a RIFF file, whatever its name says.\n" * 40)
    elif kind == "raw":
        path = tmp_path / "speech.raw"
        path.write_bytes(bytes(1000))
    elif kind in ("cut flac", "endless flac"):
        data = bytearray((clips.HERE / "kettle.flac").read_bytes())
        if kind == "cut flac":
            del data[len(data) // 2 :]
        else:  # the count of samples in STREAMINFO, as an encoder that writes to a pipe leaves it
            data[21] &= 0xF0
            data[22:26] = bytes(4)
        path.write_bytes(data)
    return path


@pytest.mark.parametrize(("kind", "says"), [
    ("missing", "No such file"), ("directory", "is a directory"), ("no bytes", "is empty"), ("no frames", "is empty"),
    ("below a sample", "is empty"), ("text", "is not audio"), ("raw", "is not audio"), ("cut flac", "is damaged"),
    ("endless flac", "how long"), ("nan", "not finite"), ("infinite", "not finite"),
])  # fmt: skip
def test_what_is_not_speech_is_one_line(tmp_path: Path, kind: str, says: str) -> None:
    path = unfit(tmp_path, kind)
    with pytest.raises(UserError, match=says) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_16_khz_needs_no_resampler(tmp_path: Path) -> None:
    program = ("import sys; from pathlib import Path; from whisper_factory.whisper.audio import read_audio; "
               "assert 'soundfile' not in sys.modules; read_audio(Path(sys.argv[1])); assert 'soxr' not in sys.modules")
    sample = clips.bundled("quick")[0].path
    subprocess.run([sys.executable, "-c", program, str(sample)], check=True)
