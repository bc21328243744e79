"""The choice: layers in the order of their harm, as few of them as the budget needs. Knows neither models nor numpy.

Layers that share their bits are one candidate (`mixed.candidates`). How many of the order keep 8 bits is found by
halving. Word error rates need not fall with every layer that is kept, so a lower number may hold the budget, too: what
is certain is that the one chosen holds it, and that one less was tried and does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from whisper_factory.engine_spec import Precision
from whisper_factory.errors import GateMissed
from whisper_factory.quantization import mixed
from whisper_factory.quantization.mixed import Candidate
from whisper_factory.whisper.dimensions import Dimensions

SCALE = 4  # bytes, float32


class Trial(Protocol):
    """Models that are tried on speech."""

    words: int  # said in all
    clips: int

    def errors(self, kept: Sequence[str] | None) -> int:
        """Word errors with these layers at 8 bits and all others at 4; None: of the exact model."""

    def harms(self, candidates: Sequence[Candidate]) -> list[float]:
        """How far the model's predictions are from the exact one's with each alone at 4 bits: nats a token, >= 0."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why."""

    kept: tuple[str, ...]  # in the model's order
    about: dict[str, Any]  # plain data: what was tried, each candidate's harm and bytes


def choose(trial: Trial, bytes_of: Mapping[Candidate, int], budget: float) -> Choice:
    """Keep the fewest candidates, the most harmful for their bytes first, with which the budget holds.

    Args:
        bytes_of: what each candidate takes more with 8 bits, in the model's order.
        budget: percentage points of the word error rate above the exact model's.

    Raises:
        GateMissed: not even with all of them.
    """
    exact = trial.errors(None)
    order: list[Candidate] = list(bytes_of)
    tried: dict[int, int] = {}  # how many are kept -> word errors

    def holds(count: int) -> bool:
        tried[count] = trial.errors([layer for candidate in order[:count] for layer in candidate])
        return 100 * (tried[count] - exact) <= budget * trial.words

    weighed: list[dict[str, Any]] = []
    fewest = 0
    if not holds(0):
        if not holds(len(order)):
            raise GateMissed(_missed(trial, exact, tried[len(order)], budget))
        harms = dict(zip(order, trial.harms(order), strict=True))
        order.sort(key=lambda candidate: -harms[candidate] / bytes_of[candidate])  # a stable sort: ties stay in order
        weighed = [{"layers": list(one), "harm": harms[one], "bytes": bytes_of[one]} for one in order]
        fewest = shortest(holds, len(order))
    chosen = {layer for candidate in order[:fewest] for layer in candidate}
    rates = {count: _rate(trial, errors) for count, errors in sorted(tried.items())}
    about = {
        "max_wer_delta": budget, "clips": trial.clips, "words": trial.words,
        "wer": {"exact": _rate(trial, exact), "none_kept": rates[0], "chosen": rates[fewest]},
        "tried": [{"kept": count, "wer": rate} for count, rate in rates.items()],
        "bytes": sum(bytes_of[candidate] for candidate in order[:fewest]), "bytes_of_all": sum(bytes_of.values()),
        "order": weighed,  # the first `tried.kept` of it; empty where none need be kept
    }
    return Choice(tuple(layer for candidate in bytes_of for layer in candidate if layer in chosen), about)


def bytes_of(dimensions: Dimensions, precision: Precision) -> dict[Candidate, int]:
    """What each candidate takes more in a checkpoint, with 8 bits and a scale a row."""
    shapes = mixed.layers(dimensions)

    def stored(layer: str, precision: Precision) -> int:
        rows, columns = shapes[layer]
        return rows * (columns * precision.bits_of(layer) // 8 + SCALE * precision.scales_of(layer, columns))

    least, most = replace(precision, keep=()), replace(precision, keep=tuple(shapes))
    return {candidate: sum(stored(layer, most) - stored(layer, least) for layer in candidate)
            for candidate in mixed.candidates(dimensions)}


def shortest(holds: Callable[[int], bool], most: int) -> int:
    """A count from 1 to `most` that holds where one less does not; 0 is known not to hold, and `most` to hold."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def halvings(most: int) -> int:
    """How many counts `shortest` tries at the most."""
    return max(0, most - 1).bit_length()


def _rate(trial: Trial, errors: int) -> float:
    return round(100 * errors / trial.words, 2)


def _missed(trial: Trial, exact: int, errors: int, budget: float) -> str:
    return (f"precision.max_wer_delta={budget:g} cannot be held: with every layer at 8 bits the word error rate is "
            f"{_rate(trial, errors):.2f} %, {100 * (errors - exact) / trial.words:.2f} points over the exact model's, "
            f"on {trial.clips} clips of {trial.words} words; allow more points, give calibration.clips more speech, or "
            f"use precision=float16")
