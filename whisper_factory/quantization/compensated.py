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

from whisper_factory.quantization.grams import TOGETHER, Factor

Floats = NDArray[np.float32]
LOW, HIGH = -8, 7
SHARES = np.linspace(0.45, 1.05, 25)  # of max|w| / 7, of which one becomes the scale
CACHED = 1 << 16  # weights whose scales are searched at once, so that they stay in cache


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
    rows = max(1, CACHED // weight.shape[1])
    return np.concatenate([_searched(parts[start : start + rows], inside) for start in range(0, len(parts), rows)])


def _searched(parts: Floats, inside: Floats) -> Floats:
    """The scales [out, groups] of a few rows [out, groups, columns]."""
    most = np.maximum(parts.max(axis=2) / HIGH, parts.min(axis=2) / LOW)
    best, scale, rest = np.full(most.shape, np.inf), np.zeros(most.shape, np.float32), np.empty_like(parts)
    for share in SHARES:
        tried = (most * share).astype(np.float32)
        np.divide(parts, _steps(tried)[:, :, None], out=rest)
        np.clip(np.rint(rest, out=rest), LOW, HIGH, out=rest)
        rest *= tried[:, :, None]
        rest -= parts
        if inside.ndim == 2:
            cost = np.einsum("ogi,gi->og", np.square(rest, out=rest), inside)
        else:
            weighed = (rest.transpose(1, 0, 2) @ inside).transpose(1, 0, 2)
            cost = np.einsum("ogi,ogi->og", weighed, rest, dtype=np.float64)
        better = cost < best
        best[better], scale[better] = cost[better], tried[better]
    return scale


def gptq(weight: Floats, factor: Factor, scale: Floats) -> Floats:
    """Integers [out, in] as floats, rounded one column after the other; each error is spread over what follows."""
    left, upper = np.ascontiguousarray(weight.T[factor.order]), factor.upper
    q, of = np.empty_like(left), factor.order // (weight.shape[1] // scale.shape[1])
    scales, steps = np.ascontiguousarray(scale.T), np.ascontiguousarray(_steps(scale).T)
    for start in range(0, len(left), TOGETHER):
        block = slice(start, min(start + TOGETHER, len(left)))
        here, inside = left[block], np.ascontiguousarray(upper[block, block].T)
        lost = np.empty_like(here)
        for column, group in enumerate(of[block]):
            wanted, chosen, rest = here[column], q[start + column], lost[column]
            wanted -= np.dot(inside[column, :column], lost[:column], out=rest)
            _nearest(np.divide(wanted, steps[group], out=chosen))
            np.subtract(wanted, np.multiply(chosen, scales[group], out=rest), out=rest)
            rest /= inside[column, column]
        left[block.stop :] -= upper[block, block.stop :].T @ lost
    back = np.empty(weight.shape, np.float32)
    back[:, factor.order] = q.T
    return back


def descend(weight: Floats, gram: Floats, scale: Floats, q: Floats, sweeps: int = 2) -> Floats:
    """Set each integer to the best one given all others, column after column; the cost never rises."""
    size = weight.shape[1] // scale.shape[1]
    diagonal = np.maximum(np.diag(gram), np.finfo(np.float32).tiny)
    scales, steps = np.ascontiguousarray(scale.T), np.ascontiguousarray(_steps(scale).T)
    pull, found = gram @ (weight - made_of(q, scale)).T, np.ascontiguousarray(q.T)  # half the slope of the cost
    slope = np.empty(len(weight), np.float32)
    for sweep in range(sweeps):
        for start in range(0, len(found), TOGETHER):
            block = slice(start, min(start + TOGETHER, len(found)))
            here, inside = pull[block], gram[block, block]
            change = np.empty_like(here)
            for column in range(len(here)):
                place, group = start + column, (start + column) // size
                before, moved = found[place], change[column]
                np.subtract(here[column], np.dot(inside[column, :column], change[:column], out=slope), out=slope)
                slope /= np.multiply(steps[group], diagonal[place], out=moved)
                slope += before
                np.subtract(_nearest(slope), before, out=moved)
                moved *= scales[group]
                before[:] = slope
            follow = slice(block.stop if sweep + 1 == sweeps else 0, None)  # who is looked at again
            pull[follow] -= gram[follow, block] @ change
    settled: Floats = np.ascontiguousarray(found.T)
    return settled


def _nearest(column: Floats) -> Floats:
    """Rounded to integers in range, in place; np.clip takes longer than all else for so few."""
    np.rint(column, out=column)
    np.maximum(column, np.float32(LOW), out=column)
    np.minimum(column, np.float32(HIGH), out=column)
    return column


def refit(weight: Floats, gram: Floats, q: Floats, scale: Floats) -> Floats:
    """For one group after the other the scale that costs least with these integers; [out, groups], positive."""
    size = weight.shape[1] // scale.shape[1]
    found: Floats = scale.copy()
    pull, turned = gram @ (weight - made_of(q, scale)).T, np.ascontiguousarray(q.T)
    for group in range(scale.shape[1]):
        here = slice(group * size, (group + 1) * size)
        of = turned[here]
        along = np.einsum("io,io->o", of, pull[here])
        weighs = np.einsum("io,io->o", of, gram[here, here] @ of)
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
