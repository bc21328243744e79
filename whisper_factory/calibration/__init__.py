"""Calibration: integers and scales that are chosen by what speech does in the model, not by the weights alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from whisper_factory.whisper.dimensions import Dimensions

if TYPE_CHECKING:
    from whisper_factory.calibration.clips import Speech

CALIBRATION = 6  # raised whenever the same clips would give other integers
SECONDS = 0.09  # for a clip and a million weights of the blocks, on two cores; of 64: tiny.en 45 s, random small.en 594


def duration(dimensions: Dimensions, speech: Sequence[Speech]) -> str:
    """About how long a calibration takes, for a person."""
    weights = (12 * dimensions.n_audio_layer + 2 * dimensions.n_text_layer) * dimensions.n_audio_state**2
    minutes = SECONDS * len(speech) * weights / 1e6 / 60
    return "about a minute" if minutes < 1.5 else f"about {minutes:.0f} minutes"
