"""Which layers of a 4-bit engine keep 8 bits, so that a budget of word errors holds (precision.max_wer_delta).

Decided on the model itself, in NumPy, before any backend: what is chosen is the same for all of them. Importing this
imports no numpy.
"""

from __future__ import annotations

from whisper_factory.keeping.choosing import halvings
from whisper_factory.quantization import mixed
from whisper_factory.whisper.dimensions import Dimensions

SENSED = 16  # clips on which each layer's harm is weighed; a divergence is a much finer measure than word errors
TRIALS = 3  # besides halving: the exact model, all layers at 4 bits, all at 8
SECONDS = 0.013  # for a clip and a million weights of the linear layers, on two cores: tiny.en about 4 minutes


def passes(dimensions: Dimensions, clips: int) -> int:
    """How often a clip goes through a model at the most: how long it all takes, to a first approximation."""
    count = len(mixed.candidates(dimensions))
    return clips * (TRIALS + halvings(count)) + min(SENSED, clips) * count


def duration(dimensions: Dimensions, clips: int) -> str:
    """About how long choosing takes at the most, for a person."""
    weights = sum(rows * columns for rows, columns in mixed.layers(dimensions).values())
    minutes = SECONDS * passes(dimensions, clips) * weights / 1e6 / 60
    if minutes >= 120:
        return f"{minutes / 60:.0f} hours"
    return f"{max(1, round(minutes))} minute{'s' if minutes >= 1.5 else ''}"
