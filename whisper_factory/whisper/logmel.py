"""The log-mel spectrogram, which is what Whisper's encoder sees.

The filters and the arithmetic are those of OpenAI's whisper/audio.py (Slaney's mel scale and normalisation, as
librosa.filters.mel with its defaults), in numpy alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy import fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from whisper_factory.whisper.dimensions import HOP_LENGTH, N_FFT, SAMPLE_RATE

FLOOR = 1e-10  # power below which the logarithm is not taken
RANGE = 8.0  # decades kept below the window's loudest bin

# Slaney's scale is linear up to 1 kHz (15 mels) and logarithmic above (27 mels a factor of 6.4).
LINEAR_HZ, LINEAR_MELS, LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27.0

# Frames of one matrix product: few enough that NumPy's BLAS does not share it among threads, whose waiting for a
# processor that is busy took ten times as long as the whole product.
TOGETHER = 8
AT_ONCE = 80  # frames; their spectra stay in a core's cache, and need no fresh memory


@functools.cache
def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Triangular filters of equal area [n_mels, 201], from power spectrum to mel bins. Shared: do not write to it."""
    top = LINEAR_MELS + np.log(SAMPLE_RATE / 2 / LINEAR_HZ) / LOG_STEP
    mels = np.linspace(0.0, top, n_mels + 2)
    logarithmic = LINEAR_HZ * np.exp((mels - LINEAR_MELS) * LOG_STEP)
    corners = np.where(mels < LINEAR_MELS, mels * LINEAR_HZ / LINEAR_MELS, logarithmic)[:, None]
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    triangles = np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak))
    filters: NDArray[np.float32] = (np.maximum(triangles, 0.0) * (2.0 / (high - low))).astype(np.float32)
    return filters


def log_mel(audio: NDArray[np.float32], n_mels: int, frames: int) -> NDArray[np.float32]:
    """Log-mel spectrogram [n_mels, frames] of audio padded with silence, or cut, to the window.

    Only the frames that the audio touches are transformed: the value of silence is known.

    Args:
        audio: samples [n] at 16 kHz, any n.
        n_mels: 80, or 128 for large-v3.
        frames: length of the window in frames of 10 ms, at least 2.
    """
    audio = np.asarray(audio, dtype=np.float32)[: frames * HOP_LENGTH]
    touched = min(frames, -(-(len(audio) + N_FFT // 2) // HOP_LENGTH))
    mels = _mels(audio, n_mels, frames, touched)
    levels = np.full((n_mels, frames), np.log10(FLOOR), dtype=np.float32)
    levels[:, :touched] = np.log10(np.maximum(mels, np.float32(FLOOR))).T
    np.maximum(levels, levels.max() - np.float32(RANGE), out=levels)
    levels += np.float32(4.0)
    levels /= np.float32(4.0)
    return levels


def log_mels(clips: Sequence[NDArray[np.float32]], n_mels: int, frames: int) -> NDArray[np.float32]:
    """`log_mel` of each clip: [clips, n_mels, frames]. One after the other: two threads take half the time, 2 % of a
    batch's, and 11 MB more than one."""
    levels = np.empty((len(clips), n_mels, frames), np.float32)
    for place, audio in enumerate(clips):
        levels[place] = log_mel(audio, n_mels, frames)
    return levels


def _mels(audio: NDArray[np.float32], n_mels: int, frames: int, touched: int) -> NDArray[np.float32]:
    """Mel bins [touched, n_mels] of the first frames, each centred on its sample, the window reflected at both ends."""
    half = N_FFT // 2
    signal = np.zeros(frames * HOP_LENGTH + N_FFT, dtype=np.float32)
    signal[half : half + len(audio)] = audio
    signal[:half] = signal[2 * half : half : -1]
    signal[-half:] = signal[-half - 2 : -2 * half - 2 : -1]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    parts, filters = sliding_window_view(signal, N_FFT)[::HOP_LENGTH][:touched], mel_filters(n_mels).T
    mels = np.empty((touched, n_mels), dtype=np.float32)
    for start in range(0, touched, AT_ONCE):
        spectra = fft.rfft(parts[start : start + AT_ONCE] * hann)
        power = np.zeros((-(-len(spectra) // TOGETHER), TOGETHER, spectra.shape[1]), dtype=np.float32)
        np.square(np.abs(spectra), out=power.reshape(-1, power.shape[2])[: len(spectra)])
        mels[start : start + AT_ONCE] = np.matmul(power, filters).reshape(-1, n_mels)[: len(spectra)]
    return mels
