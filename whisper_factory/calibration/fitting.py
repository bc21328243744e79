"""One linear layer: from what speech makes of its inputs and wanted outputs to integers, scales and a bias.

The inputs are those of the model that is rounded so far, the wanted outputs those of the exact one: so a layer also
makes up for what the layers before it have lost. With a few thousand positions that is a regression which could learn
them by heart; `RIDGE` holds it to the exact weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whisper_factory import threads
from whisper_factory.quantization import compensated
from whisper_factory.quantization.compensated import Rounded

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Method = Literal["scale", "gptq"]

RIDGE = 0.03  # of the mean variance of an input: how much evidence it takes to move a weight
EXACT = "exact inputs"
PARTS = 2  # of a layer's rows
ROUNDS, SWEEPS = 2, 2  # of integers and scales in turn; of the integers in each


@dataclass
class Moments:
    """Sums over positions of inputs x [n, in] and, by layer, of wanted outputs y [n, out]; float64, [.., in + 1].

    The last column is that of a constant 1: the sums themselves. Where many layers have their inputs in common, those
    of the exact model's inputs, EXACT, take their outputs' place until `apply`: a sum for all instead of one for each.
    """

    inputs: Doubles
    outputs: dict[str, Doubles] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Floats, outputs: Mapping[str, Floats], weight: float = 1.0) -> Moments:
        """The moments of one window, each of whose positions counts `weight`."""
        given = extended(x)
        found = cls((given.T @ given).astype(np.float64),
                    {name: (y.T @ given).astype(np.float64) for name, y in outputs.items()})
        if weight != 1:
            for sums in (found.inputs, *found.outputs.values()):
                sums *= weight
        return found

    def add(self, other: Moments) -> None:
        """Another window's moments."""
        self.inputs += other.inputs
        for name, sums in other.outputs.items():
            self.outputs[name] += sums

    def apply(self, layers: Mapping[str, tuple[Floats, Floats | None]]) -> None:
        """From the exact inputs' moments to those of the outputs that exact weights [out, in] and biases make."""
        sums = self.outputs.pop(EXACT)
        for name, (weight, bias) in layers.items():
            self.outputs[name] = weight @ sums[:-1]
            if bias is not None:
                self.outputs[name] += np.outer(bias, sums[-1])


def extended(x: Floats) -> Floats:
    """Inputs [n, in] with a constant 1 at the end [n, in + 1]."""
    return np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)


@dataclass(frozen=True)
class Fitted:
    """What a layer becomes: its integers and scales, and its bias [out] (of no use to a key, which has none)."""

    rounded: Rounded
    bias: Floats


def fit(weight: Floats, moments: Moments, name: str, method: Method, ridge: float = RIDGE,
        group_size: int = 0) -> Fitted:
    """Round a weight [out, in].

    Args:
        group_size: columns that share a scale; 0: a row's have one.

    Raises:
        compensated.SingularGram: the inputs' covariance cannot be used.
    """
    count = moments.inputs[-1, -1]
    mean_x, mean_y = moments.inputs[:-1, -1] / count, moments.outputs[name][:, -1] / count
    gram = moments.inputs[:-1, :-1] / count - np.outer(mean_x, mean_x)
    shared = moments.outputs[name][:, :-1] / count - np.outer(mean_y, mean_x)
    damped = compensated.damp(gram)
    wanted = weight if method == "scale" else _regress(weight, gram, shared, ridge)
    q, scale = _round(wanted, damped, method, weight.shape[1] // (group_size or weight.shape[1]))
    bias = (mean_y - compensated.made_of(q, scale) @ mean_x).astype(np.float32)
    return Fitted(Rounded(q, scale if group_size else scale[:, 0]), bias)


def _regress(weight: Floats, gram: Doubles, shared: Doubles, ridge: float) -> Floats:
    """The float weight whose outputs, on the inputs that there are, come nearest to the wanted ones."""
    held = compensated.damp(gram, ridge)
    missing = shared - weight @ gram
    found: Floats = (weight + np.linalg.solve(held, missing.T).T).astype(np.float32)
    return found


def _round(wanted: Floats, gram: Doubles, method: Method, groups: int) -> tuple[NDArray[np.int8], Floats]:
    """Integers and scales [out, groups]. Rows go through in PARTS at once; they have nothing to do with each other."""
    narrow = gram.astype(np.float32)
    factor = compensated.Factor.of(gram) if method == "gptq" else None

    def rounded(rows: Floats) -> tuple[Floats, Floats]:
        if factor is None:
            scale = compensated.search_scales(rows, narrow, groups)
            return compensated.round_to(rows, scale), scale
        scale = compensated.search_scales(rows, factor.left, groups)
        q = compensated.gptq(rows, factor, scale)
        for _ in range(ROUNDS):
            q = compensated.descend(rows, narrow, scale, q, SWEEPS)
            scale = compensated.refit(rows, narrow, q, scale)
        return q, scale

    made = list(threads.ahead(rounded, np.array_split(wanted, PARTS)))
    q, scale = (np.concatenate(parts) for parts in zip(*made, strict=True))
    # kernels hold scales in float16: what is measured here is then what they compute
    return q.astype(np.int8), scale.astype(np.float16).astype(np.float32)
