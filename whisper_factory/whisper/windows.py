"""How audio becomes windows: how many mel frames the encoder sees, and where long audio is cut.

An engine hears `window_frames` at once. Longer audio is cut into windows that are transcribed apart and joined.
The cuts (seams) lie in pauses, so that few words are split. Windows are therefore of unequal lengths, and somewhat
more than the fewest possible. Nothing is heard twice, nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from whisper_factory.engine_spec import EngineSpec, PaddingStrategy, longest_safe_clip
from whisper_factory.whisper.dimensions import HOP_LENGTH, SAMPLE_RATE, WINDOW_FRAMES

# Chosen on 64 sentences in a row, as they are and with their pauses taken out, heard by tiny.en in int8: in windows of
# 7.5 s the word error rate is about 13 and 23 % where cuts at equal distances give 32 and 30 % (sentences alone: 8), in
# windows of 30 s it is 7 and 7 where they give 6 and 12 (alone: 7).
SHORTEST = 0.4  # of the longest piece
PIECE = 0.05
GRID = 5  # mel frames
QUIET_FRAMES = 10  # what counts at a seam is the loudness of the 100 ms around it

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


def longest_piece(spec: EngineSpec) -> int:
    """The most mel frames of a window that is cut from longer audio.

    Below 3000 frames that leaves the margin after the words that the engine is safest with, where a clip that fits
    whole may use it up.
    """
    longest = spec.profile.max_input_len
    if spec.window_frames < WINDOW_FRAMES:
        longest = min(longest, longest_safe_clip(spec.window_frames))
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

    Of all ways to cut it into pieces of SHORTEST to 1 times `longest`, the cheapest, found by dynamic programming
    on a grid of GRID frames. A seam costs the loudness there, a piece costs PIECE times 1 to 2, more the longer it
    is, which makes pieces as few, and as equal, as the pauses allow.
    """
    total = frames_of(len(audio))
    places, most = -(-total // GRID), longest // GRID
    at_frames = _loudness(audio)[::GRID]
    loudness = np.zeros(places + 1)  # the end costs nothing
    loudness[:len(at_frames)] = at_frames
    least = max(1, int(SHORTEST * most))
    lengths = np.arange(most, least - 1, -1)
    piece = PIECE * (1 + (lengths / most) ** 2)
    cost = np.full(most + places + 1, np.inf)  # from `most` before the start on
    cost[most] = 0.0
    previous = np.zeros(places + 1, np.int64)
    for start in range(least, places + 1, least):  # of so many places none depends on another: no piece is shorter
        here = np.arange(start, min(start + least, places + 1))
        costs = sliding_window_view(cost[start:here[-1] + most - least + 1], len(piece)) + piece
        cheapest = costs.argmin(axis=1)
        previous[here] = here - lengths[cheapest]
        cost[most + here] = costs[here - start, cheapest] + loudness[here]
    found = []
    place = int(previous[places])
    while place:
        found.append(place * GRID)
        place = int(previous[place])
    return found[::-1]


def _loudness(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Amplitude of the 100 ms around the start of each mel frame; 1 is that of speech: its 90th percentile."""
    whole = len(audio) - len(audio) % HOP_LENGTH
    frames = audio[:whole].reshape(-1, HOP_LENGTH)
    sums = np.cumsum(np.concatenate([[0.0], np.einsum("fs,fs->f", frames, frames)]))  # float32 within a frame
    starts = np.arange(len(frames))
    before, after = np.maximum(starts - QUIET_FRAMES // 2, 0), np.minimum(starts + QUIET_FRAMES // 2, len(frames))
    amplitude: NDArray[np.float64] = np.sqrt(np.maximum(sums[after] - sums[before], 0.0))
    return amplitude / max(float(np.percentile(amplitude, 90)), 1e-9)


def join(texts: Sequence[str], language: str | None) -> str:
    """The texts of consecutive windows as one; empty ones leave no trace."""
    return ("" if language in SPACELESS else " ").join(text for text in texts if text)
