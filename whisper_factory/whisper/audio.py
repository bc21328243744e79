"""Reads audio files as Whisper hears them: mono, 16 kHz, float32 in [-1, 1]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import SAMPLE_RATE
from whisper_factory.whisper.plain_wav import plain_wav

if TYPE_CHECKING:  # planning lists clips, and must not pay for importing numpy
    import numpy as np
    from numpy.typing import NDArray

READS = "give a WAV or FLAC file"
SLOWEST, FASTEST = 2_000, 768_000  # samples per second
LONGEST = 1 << 40  # frames; what says more says nothing


def read_audio(path: Path) -> NDArray[np.float32]:
    """Samples [n] of a WAV or FLAC file (or whatever else libsndfile reads) at any rate and channel count.

    Channels are averaged, other rates resampled by soxr (high quality), and what overshoots is clipped, as a
    16-bit decoder would.

    Raises:
        UserError: there is no such file, it is a directory, empty, not audio, or holds NaN or infinite samples.
    """
    import numpy as np

    audio: NDArray[np.float32]
    if plain := plain_wav(path):
        rate, samples = plain
    else:
        with _open(path) as stream:
            rate, samples = stream.samplerate, stream.read(dtype="float32", always_2d=True)
    audio = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(audio).all():
        raise UserError(f"'{path}' holds samples that are not finite numbers; export it again as 16-bit WAV or FLAC")
    if not SLOWEST <= rate <= FASTEST:
        raise UserError(f"'{path}' says it has {rate} samples a second, which is no speech; {READS}")
    if rate != SAMPLE_RATE:
        import soxr

        audio = soxr.resample(audio, rate, SAMPLE_RATE, quality="HQ")
    if audio.size == 0:
        raise _empty(path)
    audio = np.clip(audio, -1.0, 1.0)
    return audio


def duration(path: Path) -> float:
    """Length of an audio file in seconds, from its header.

    Raises:
        UserError: as `read_audio`, as far as the header tells.
    """
    with _open(path) as stream:
        return float(stream.frames / stream.samplerate)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """An open soundfile.SoundFile with at least one frame."""
    import soundfile

    if path.is_dir():
        raise UserError(f"'{path}' is a directory, not an audio file; {READS}")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise _empty(path)
            file.seek(0)
            with soundfile.SoundFile(file) as stream:
                if stream.frames == 0:
                    raise _empty(path)
                if stream.frames > LONGEST:  # a FLAC written to a pipe; libsndfile cannot read on without knowing
                    raise UserError(f"'{path}' does not say how long it is; convert it to a WAV file first")
                yield stream
    except OSError as error:
        raise UserError(f"cannot read the audio file '{path}' ({error.strerror or error}); {READS}") from error
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a name that ends in .raw
        raise UserError(f"'{path}' is not audio that can be read, or is damaged; {READS}") from error


def _empty(path: Path) -> UserError:
    return UserError(f"'{path}' is empty: it holds no audio; {READS} with speech in it")
