"""How audio becomes windows: how many mel frames the encoder sees, and where long audio is cut.

An engine hears `window_frames` at once. Longer audio is cut into windows that are transcribed apart and joined.
The cuts (seams) lie where it is quietest, so that few words are split: in audio cut into n windows of equal length,
each seam is moved to the quietest 100 ms around. Nothing is heard twice, nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from whisper_factory.engine_spec import EngineSpec, PaddingStrategy
from whisper_factory.whisper.dimensions import HOP_LENGTH, SAMPLE_RATE, WINDOW_FRAMES

# Below 3000 frames the decoder stops reliably when the window is this long, and this much longer than the clip.
LEAST_FRAMES = 750
MARGIN_FRAMES = 100

QUIET_FRAMES = 10  # a seam's energy is that of the 100 ms around it
AS_QUIET = 2.0  # times the least energy (3 dB): of such seams the one nearest to the middle is taken
SLACK = 0.2  # of a window: at least this long is the range in which a seam is looked for ...
SLACK_FRAMES = 200  # ... or 2 s, in which speakers nearly always pause, ...
MOST_SLACK = 1 / 3  # ... but no more of a window than this

# Written without spaces between words.
SPACELESS = frozenset(("bo", "ja", "km", "lo", "my", "th", "yue", "zh"))


@dataclass(frozen=True)
class Window:
    """A part of a clip, in samples."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        """Length of the audio in it."""
        return (self.end - self.start) / SAMPLE_RATE

    @property
    def frames(self) -> int:
        """Mel frames of the audio in it, the last perhaps not full."""
        return frames_of(self.end - self.start)


def frames_of(samples: int) -> int:
    """Mel frames that hold so many samples."""
    return -(-samples // HOP_LENGTH)


def encoder_frames(clip_frames: int, strategy: PaddingStrategy, spec: EngineSpec) -> int:
    """How many mel frames the encoder sees for a clip: even, and at least the clip's where the engine can.

    `max`: always the engine's longest window. `nopad` and `trim`: max(750, clip + 100), as far as the engine goes.
    """
    if strategy == "max":
        return spec.window_frames
    wanted = max(LEAST_FRAMES, clip_frames + MARGIN_FRAMES)
    return min(spec.window_frames, wanted + wanted % 2)


def longest_piece(spec: EngineSpec) -> int:
    """The most mel frames of a window that is cut from longer audio.

    Below 3000 frames that leaves the margin after the words that the engine is safest with, where a clip that fits
    whole may use it up.
    """
    longest = spec.profile.max_input_len
    if spec.window_frames < WINDOW_FRAMES:
        longest = min(longest, spec.window_frames - MARGIN_FRAMES)
    return max(longest, spec.profile.max_input_len // 2)


def split(audio: NDArray[np.float32], strategy: PaddingStrategy, spec: EngineSpec) -> list[Window]:
    """Cut a clip into windows that the engine can hear.

    Args:
        audio: mono, 16 kHz, [samples].

    Returns:
        One window if the clip fits; under `trim` one window always, the clip's beginning; else windows from the
        clip's start to its end, each beginning where the one before ends.
    """
    longest = spec.profile.max_input_len
    if frames_of(len(audio)) <= longest:
        return [Window(0, len(audio))]
    if strategy == "trim":
        return [Window(0, longest * HOP_LENGTH)]
    cuts = [0, *(frame * HOP_LENGTH for frame in seams(audio, longest_piece(spec))), len(audio)]
    return [Window(start, end) for start, end in pairwise(cuts)]


def seams(audio: NDArray[np.float32], longest: int) -> list[int]:
    """Where to cut audio so that no piece is longer than `longest` mel frames, as mel frames, ascending.

    With pieces of equal length `equal`, a seam may move by half of what is missing from `equal` to `longest` (and by
    a quarter of `equal`, so that no piece is a sliver). There are as many pieces as leave it a range to move in.
    """
    total = frames_of(len(audio))
    slack = min(max(SLACK * longest, SLACK_FRAMES), MOST_SLACK * longest)
    pieces = int(np.ceil(total / (longest - slack)))
    equal = total / pieces
    reach = min((longest - equal) / 2, equal / 4)
    energy = _energy(audio)
    return [_quietest(energy, number * equal, reach) for number in range(1, pieces)]


def _energy(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Energy of the 100 ms around the start of each mel frame."""
    whole = len(audio) - len(audio) % HOP_LENGTH
    frames = audio[:whole].reshape(-1, HOP_LENGTH)
    sums = np.cumsum(np.concatenate([[0.0], np.einsum("fs,fs->f", frames, frames, dtype=np.float64)]))
    starts = np.arange(len(frames))
    before, after = np.maximum(starts - QUIET_FRAMES // 2, 0), np.minimum(starts + QUIET_FRAMES // 2, len(frames))
    energy: NDArray[np.float64] = np.maximum(sums[after] - sums[before], 0.0)
    return energy


def _quietest(energy: NDArray[np.float64], middle: float, reach: float) -> int:
    """The frame to cut at within `reach` frames of `middle`."""
    first, last = int(np.ceil(middle - reach)), int(np.floor(middle + reach))
    frames = np.arange(first, last + 1)
    here = energy[frames]
    quiet = frames[here <= AS_QUIET * here.min()]
    return int(quiet[np.abs(quiet - middle).argmin()])


def join(texts: Sequence[str], language: str | None) -> str:
    """The texts of consecutive windows as one; empty ones leave no trace."""
    return ("" if language in SPACELESS else " ").join(text for text in texts if text)
