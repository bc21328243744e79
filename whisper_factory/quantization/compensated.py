"""4-bit rounding that answers for its errors: integers and scales that change a layer's outputs least on given inputs.

The forms are weight_only.py's and groups.py's: integers in [-8, 7], and a scale an output channel or one for each group
of a row's neighbours. Only how they are chosen differs. With H the covariance of the layer's inputs, what the rounding
of a row w to v, each v = s q, costs is

    (w - v) H (w - v)ᵀ

the mean square of what its output changes by, apart from a constant, which the layer's bias takes up (and which
softmax ignores in keys, which have none). `search_scales` finds the scales that cost least with q = w / s rounded;
`gptq` rounds one column after the other and lets those to come make up for what was lost; `descend` improves the
integers one by one, and `refit` fits the scales to them.

Scales are [out, groups] throughout; one group is a scale a row. Columns are worked on one after the other, so inside
weights lie as [in, out].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LOW, HIGH = -8, 7
SHARES = np.linspace(0.45, 1.05, 25)  # of max|w| / 7, of which one becomes the scale
DAMPING = 0.01  # of the mean diagonal of H
TOGETHER = 64  # columns between two updates of all that follow


class SingularGram(ValueError):
    """The inputs span so little that no damping makes their covariance invertible."""


@dataclass(frozen=True)
class Rounded:
    """Integers int8 [out, in] in [-8, 7], and scales float32 [out], or [out, groups]."""

    q: NDArray[np.int8]
    scale: Floats


def made_of(q: NDArray[Any], scale: Floats) -> Floats:
    """The weight [out, in] that integers [out, in] and scales [out, groups] are."""
    found: Floats = (_grouped(q, scale) * scale[:, :, None]).reshape(q.shape)
    return found


def round_to(weight: Floats, scale: Floats) -> Floats:
    """The nearest integers in range, as floats [out, in]; 0 where the scale is."""
    found = np.rint(_grouped(weight, scale) / _steps(scale)[:, :, None])
    nearest: Floats = np.clip(found, LOW, HIGH, out=found).reshape(weight.shape)
    return nearest


def _grouped(weight: NDArray[Any], scale: Floats) -> NDArray[Any]:
    """[out, groups, columns of a group]."""
    return weight.reshape(*scale.shape, -1)


def _steps(scale: Floats) -> Floats:
    """What to divide by: infinity for a group of zeros, whose integers are 0."""
    found: Floats = np.where(scale == 0, np.float32(np.inf), scale).astype(np.float32)
    return found


def search_scales(weight: Floats, gram: Floats, groups: int = 1) -> Floats:
    """For each group of each row of a weight [out, in] the scale [out, groups] with which rounding it costs least.

    Args:
        gram: [in, in], of which what lies between two groups is left out; or [in], its diagonal, where what rounding
            does to one column is independent of the others.
    """
    parts = weight.reshape(len(weight), groups, -1)
    places = np.arange(groups)
    inside = gram.reshape(groups, -1) if gram.ndim == 1 else gram.reshape(
        groups, parts.shape[2], groups, parts.shape[2])[places, :, places]
    most = np.maximum(parts.max(axis=2) / HIGH, parts.min(axis=2) / LOW)
    best, scale = np.full(most.shape, np.inf), np.zeros(most.shape, np.float32)
    for share in SHARES:
        tried = (most * share).astype(np.float32)
        rest = parts - _grouped(round_to(weight, tried), tried) * tried[:, :, None]
        weighed = rest * inside if gram.ndim == 1 else (rest.transpose(1, 0, 2) @ inside).transpose(1, 0, 2)
        cost = np.einsum("ogi,ogi->og", weighed, rest, dtype=np.float64)
        better = cost < best
        best[better], scale[better] = cost[better], tried[better]
    return scale


@dataclass(frozen=True)
class Factor:
    """A gram, taken apart for rounding column after column."""

    order: NDArray[np.int64]  # of the columns: the strongest input first
    upper: Floats  # triangular U [in, in] in that order; U'U is the inverse of the gram

    @classmethod
    def of(cls, gram: NDArray[Any]) -> Factor:
        """Of a damped gram [in, in].

        Raises:
            SingularGram: it is not positive definite.
        """
        order = np.argsort(-np.diag(gram), kind="stable")
        turned = gram[np.ix_(order, order)].astype(np.float64)
        try:
            lower = np.linalg.cholesky(turned[::-1, ::-1])
        except np.linalg.LinAlgError as error:
            raise SingularGram("the inputs' covariance is not positive, even damped") from error
        return cls(order, np.ascontiguousarray(_inverse(lower)[::-1, ::-1]).astype(np.float32))

    @property
    def left(self) -> Floats:
        """What an error of each column [in] costs after the columns that follow have made up for what they can.

        With these weights instead of the gram the search finds scales of which compensation makes more: 0.82 to 0.94
        of the cost.
        """
        found = np.empty(len(self.order), np.float32)
        found[self.order] = np.diag(self.upper) ** -2
        return found


def _inverse(lower: NDArray[Any]) -> NDArray[Any]:
    """Of a lower triangular matrix, by halves: a sixth of the work of any other."""
    if len(lower) <= TOGETHER:
        return np.linalg.inv(lower)
    half, found = len(lower) // 2, np.zeros_like(lower)
    found[:half, :half], found[half:, half:] = _inverse(lower[:half, :half]), _inverse(lower[half:, half:])
    found[half:, :half] = -found[half:, half:] @ (lower[half:, :half] @ found[:half, :half])
    return found


def gptq(weight: Floats, factor: Factor, scale: Floats) -> Floats:
    """Integers [out, in] as floats, rounded one column after the other; each error is spread over what follows."""
    left, upper = np.ascontiguousarray(weight.T[factor.order]), factor.upper
    q, of = np.empty_like(left), factor.order // (weight.shape[1] // scale.shape[1])
    scales, steps = np.ascontiguousarray(scale.T), np.ascontiguousarray(_steps(scale).T)
    for start in range(0, len(left), TOGETHER):
        block = slice(start, min(start + TOGETHER, len(left)))
        here, inside = left[block], upper[block, block]
        lost = np.empty_like(here)
        for column, group in enumerate(of[block]):
            wanted = here[column] - inside[:column, column] @ lost[:column]
            chosen = np.clip(np.rint(wanted / steps[group]), LOW, HIGH)
            q[start + column] = chosen
            lost[column] = (wanted - chosen * scales[group]) / inside[column, column]
        left[block.stop :] -= upper[block, block.stop :].T @ lost
    back = np.empty(weight.shape, np.float32)
    back[:, factor.order] = q.T
    return back


def damp(gram: NDArray[Any], damping: float = DAMPING) -> NDArray[np.float64]:
    """The gram with a share of its mean diagonal added to its diagonal; ones, where it is nothing at all.

    Raises:
        SingularGram: it is not finite.
    """
    damped = gram.astype(np.float64)
    mean = float(np.trace(damped)) / len(damped)
    if not np.isfinite(damped).all():
        raise SingularGram("the inputs' covariance is not finite")
    damped[np.diag_indices_from(damped)] += damping * mean if mean > 0 else 1.0
    return damped


def descend(weight: Floats, gram: Floats, scale: Floats, q: Floats, sweeps: int = 2) -> Floats:
    """Set each integer to the best one given all others, column after column; the cost never rises."""
    size = weight.shape[1] // scale.shape[1]
    diagonal = np.maximum(np.diag(gram), np.finfo(np.float32).tiny)
    scales, steps = np.ascontiguousarray(scale.T), np.ascontiguousarray(_steps(scale).T)
    pull, found = gram @ (weight - made_of(q, scale)).T, np.ascontiguousarray(q.T)  # half the slope of the cost
    for _ in range(sweeps):
        for start in range(0, len(found), TOGETHER):
            block = slice(start, min(start + TOGETHER, len(found)))
            here, inside = pull[block], gram[block, block]
            change = np.empty_like(here)
            for column in range(len(here)):
                place, group = start + column, (start + column) // size
                slope = here[column] - inside[column, :column] @ change[:column]
                best = np.clip(np.rint(found[place] + slope / (diagonal[place] * steps[group])), LOW, HIGH)
                change[column] = (best - found[place]) * scales[group]
                found[place] = best
            pull -= gram[:, block] @ change
    settled: Floats = np.ascontiguousarray(found.T)
    return settled


def refit(weight: Floats, gram: Floats, q: Floats, scale: Floats) -> Floats:
    """For one group after the other the scale that costs least with these integers; [out, groups], positive."""
    size = weight.shape[1] // scale.shape[1]
    found: Floats = scale.copy()
    pull, turned = gram @ (weight - made_of(q, scale)).T, np.ascontiguousarray(q.T)
    for group in range(scale.shape[1]):
        here = slice(group * size, (group + 1) * size)
        of = turned[here]
        along = np.einsum("io,io->o", of, pull[here], dtype=np.float64)
        weighs = np.einsum("io,io->o", of, gram[here, here] @ of, dtype=np.float64)
        best = scale[:, group] + along / np.where(weighs > 0, weighs, 1)
        found[:, group] = np.where((weighs > 0) & (best > 0), best, scale[:, group])
        if scale.shape[1] > 1:
            pull -= gram[:, here] @ (of * (found[:, group] - scale[:, group]))
    return found


def cost(weight: Floats, gram: Floats, q: Floats, scale: Floats) -> NDArray[np.float64]:
    """What each row's rounding costs [out]."""
    rest = weight - made_of(q, scale)
    found: NDArray[np.float64] = np.einsum("oi,oi->o", rest @ gram, rest, dtype=np.float64)
    return found
