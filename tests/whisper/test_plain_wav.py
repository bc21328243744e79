"""WAV files that are read without libsndfile: sample for sample, and left to it where they are not plain."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.plain_wav import plain_wav


def written(path: Path, channels: int = 1, subtype: str = "PCM_16", frames: int = 1001) -> Path:
    """A file of noise, from full scale to full scale."""
    noise = np.random.default_rng(0).uniform(-1, 1, (frames, channels))
    noise[:2] = [[-1.0], [1.0]]
    soundfile.write(path, noise, 22_050, subtype=subtype)
    return path


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_libsndfiles(tmp_path: Path, channels: int) -> None:
    path = written(tmp_path / "noise.wav", channels)
    found = plain_wav(path)
    assert found
    expected, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert found[0] == rate
    np.testing.assert_array_equal(found[1], expected)


def test_other_chunks_are_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path / "noise.wav")
    data = path.read_bytes()
    odd = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    path.write_bytes(data[:12] + odd + data[12:36] + odd + data[36:] + odd)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    found = plain_wav(path)
    assert found
    np.testing.assert_array_equal(found[1], expected)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_U8", "FLOAT", "ULAW"])
def test_other_formats_are_libsndfiles_to_read(tmp_path: Path, subtype: str) -> None:
    path = written(tmp_path / "noise.wav", subtype=subtype)
    assert plain_wav(path) is None
    assert len(read_audio(path)) == round(1001 * 16_000 / 22_050)


def test_damage_is_libsndfiles_to_explain(tmp_path: Path) -> None:
    """Cut anywhere, or with a header that lies: never samples that are not there."""
    data = written(tmp_path / "noise.wav", frames=20).read_bytes()
    path = tmp_path / "damaged.wav"
    assert plain_wav(path) is None
    assert plain_wav(tmp_path) is None
    lies = [data[:length] for length in range(len(data))]
    for place, value in ((4 + 18, 0), (4 + 18, 9), (4 + 28, 3), (4 + 30, 8), (4 + 16, 3), (4 + 12, 1), (4 + 36, 255)):
        lies.append(data[:place] + bytes([value]) + data[place + 1 :])
    for lie in lies:
        path.write_bytes(lie)
        assert plain_wav(path) is None


def test_libsndfile_is_not_imported_for_it(tmp_path: Path) -> None:
    program = ("import sys; from pathlib import Path; from whisper_factory.whisper.audio import read_audio; "
               "read_audio(Path(sys.argv[1])); assert 'soundfile' not in sys.modules")
    subprocess.run([sys.executable, "-c", program, str(written(tmp_path / "noise.wav"))], check=True)
