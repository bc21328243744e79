"""Calibration: integers and scales that are chosen by what speech does in the model, not by the weights alone."""

from __future__ import annotations

from whisper_factory.whisper.dimensions import Dimensions

CALIBRATION = 6  # raised whenever the same clips would give other integers
SECONDS = 0.038  # for a clip and a million weights of the blocks, on two cores: 128 of tiny.en 42 to 51 s, of base 110
ANYHOW = 28  # clips' worth of what any calibration does: silence, joined clips, beginnings of some, and the rounding
TENS = 90  # seconds; what takes as long or longer is told in minutes


def duration(dimensions: Dimensions, clips: int) -> str:
    """About how long a calibration takes, for a person."""
    weights = (12 * dimensions.n_audio_layer + 2 * dimensions.n_text_layer) * dimensions.n_audio_state**2
    seconds = SECONDS * (ANYHOW + clips) * weights / 1e6
    return f"about {max(10, round(seconds, -1)):.0f} s" if seconds < TENS else f"about {seconds / 60:.0f} minutes"
