"""Linear layers with the same inputs: from what speech makes of those and of wanted outputs to integers and scales.

The inputs are those of the model that is rounded so far, the wanted outputs those of the exact one: so a layer also
makes up for what the layers before it have lost. With a few thousand positions that is a regression which could learn
them by heart; `RIDGE` holds it to the exact weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whisper_factory.quantization import compensated, grams
from whisper_factory.quantization.compensated import Rounded

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Method = Literal["scale", "gptq"]

RIDGE = 0.03  # of the mean variance of an input: how much evidence it takes to move a weight
EXACT = "exact inputs"
ROUNDS, SWEEPS = 2, 2  # of integers and scales in turn; of the integers in each


@dataclass
class Moments:
    """Sums over positions of inputs x [n, in] and, by layer, of wanted outputs y [n, out], as [.., in + 1].

    The last column is that of a constant 1: the sums themselves. Where many layers have their inputs in common, those
    of the exact model's inputs, EXACT, take their outputs' place until `apply`: a sum for all instead of one for each.
    """

    inputs: Floats | Doubles
    outputs: dict[str, Floats | Doubles] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Floats, outputs: Mapping[str, Floats], weight: float = 1.0) -> Moments:
        """The moments of a few windows, with x `extended`; each of their positions counts `weight`."""
        found = cls(x.T @ x, {name: y.T @ x for name, y in outputs.items()})
        if weight != 1:
            for sums in (found.inputs, *found.outputs.values()):
                sums *= np.float32(weight)
        return found

    @classmethod
    def total(cls, parts: Iterable[Moments]) -> Moments:
        """Of all windows, in float64."""
        every = iter(parts)
        first = next(every)
        found = cls(first.inputs.astype(np.float64), {name: y.astype(np.float64) for name, y in first.outputs.items()})
        for part in every:
            found.inputs += part.inputs
            for name, sums in part.outputs.items():
                found.outputs[name] += sums
        return found

    def finite(self) -> bool:
        """Whether all inputs and outputs are: whose own sums are in the last columns."""
        return all(np.isfinite(sums[:, -1]).all() for sums in (self.inputs, *self.outputs.values()))

    def apply(self, layers: Mapping[str, tuple[Floats, Floats | None]]) -> None:
        """From the exact inputs' moments to those of the outputs that exact weights [out, in] and biases make."""
        sums = self.outputs.pop(EXACT)
        for name, (weight, bias) in layers.items():
            self.outputs[name] = weight @ sums[:-1]
            if bias is not None:
                self.outputs[name] += np.outer(bias, sums[-1])


def extended(parts: Sequence[Floats]) -> Floats:
    """Inputs [n, in], in one or more parts, with a constant 1 at the end [n, in + 1]."""
    found = np.ones((sum(map(len, parts)), parts[0].shape[1] + 1), np.float32)
    np.concatenate(parts, out=found[:, :-1])
    return found


@dataclass(frozen=True)
class Fitted:
    """What a layer becomes: its integers and scales, and its bias [out] (of no use to a key, which has none)."""

    rounded: Rounded
    bias: Floats


def fit(weights: Mapping[str, Floats], moments: Moments, method: Method, ridge: float = RIDGE,
        group_size: int = 0) -> dict[str, Fitted]:
    """Round weights [out, in], all rows of all of them together: what takes long is going through the columns.

    Args:
        moments: with the wanted outputs of each.
        group_size: columns that share a scale; 0: a row's have one.

    Raises:
        grams.SingularGram: the inputs' covariance cannot be used.
    """
    weight = np.concatenate(list(weights.values()))
    outputs = np.concatenate([moments.outputs[name] for name in weights])
    count = moments.inputs[-1, -1]
    mean_x, mean_y = moments.inputs[:-1, -1] / count, outputs[:, -1] / count
    gram = moments.inputs[:-1, :-1] / count - np.outer(mean_x, mean_x)
    shared = outputs[:, :-1] / count - np.outer(mean_y, mean_x)
    wanted = weight if method == "scale" else _regress(weight, gram, shared, ridge)
    q, scale = _round(wanted, grams.damp(gram), method, weight.shape[1] // (group_size or weight.shape[1]))
    bias = (mean_y - compensated.made_of(q, scale) @ mean_x).astype(np.float32)
    scales = scale if group_size else scale[:, 0]
    ends = np.cumsum([len(rows) for rows in weights.values()])[:-1]
    parts = zip(*(np.split(array, ends) for array in (q, scales, bias)), strict=True)
    return {name: Fitted(Rounded(*rounded), own) for name, (*rounded, own) in zip(weights, parts, strict=True)}


def _regress(weight: Floats, gram: Doubles, shared: Doubles, ridge: float) -> Floats:
    """The float weight whose outputs, on the inputs that there are, come nearest to the wanted ones."""
    held, missing = grams.damp(gram, ridge), shared - weight @ gram
    found: Floats = weight + np.linalg.solve(held.astype(np.float32), missing.T.astype(np.float32)).T
    return found


def _round(wanted: Floats, gram: Doubles, method: Method, groups: int) -> tuple[NDArray[np.int8], Floats]:
    """Integers and scales [out, groups]. One thread does it: two get in each other's way, so small are its steps."""
    narrow = gram.astype(np.float32)
    if method == "scale":
        scale = compensated.search_scales(wanted, narrow, groups)
        q = compensated.round_to(wanted, scale)
    else:
        factor = grams.Factor.of(gram)
        scale = compensated.search_scales(wanted, factor.left, groups)
        q = compensated.gptq(wanted, factor, scale)
        for _ in range(ROUNDS):
            q = compensated.descend(wanted, narrow, scale, q, SWEEPS)
            scale = compensated.refit(wanted, narrow, q, scale)
    # kernels hold scales in float16: what is measured here is then what they compute
    return q.astype(np.int8), scale.astype(np.float16).astype(np.float32)
