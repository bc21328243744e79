"""Where the numbers of a plot's points go: near their point, and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product

FAR, NOTHING = 1000, 1e-6  # how much worse it is to leave the frame than to cover something; free, but for rounding
Box = tuple[float, float, float, float]  # left, bottom, right, top
Point = tuple[float, float]
DIRECTIONS = (45, 135, 315, 225, 90, 0, 180, 270, 20, 160, 340, 200, 70, 110, 250, 290)  # degrees, best first
DISTANCES = (1.35, 1.8, 2.4, 3.1, 4.0, 5.0)  # sizes of a marker
DIGIT, TALL, GAP, STROKE = 6.2, 10.0, 3.0, 0.8  # points: of a character, between names, half a line and a little


def beside(points: Sequence[Point], names: Sequence[str], size: float, frame: Box, line: Sequence[Point] = ()
           ) -> list[Point]:
    """Offsets from each point to the middle of its name, all in points of 1/72 inch.

    Taken one after the other: the nearest place inside `frame` that covers no marker (of width `size`), no name placed
    before, and nothing of `line`, whose corners follow each other across or up; where there is none, the place that
    covers least.
    """
    taken = [box(point, size, size) for point in points]
    taken += [_around(one, other) for one, other in pairwise(line)]
    offsets: list[Point] = []
    for point, name in zip(points, names, strict=True):
        best = math.inf
        for distance, angle in product(DISTANCES, DIRECTIONS):
            x, y = distance * size * math.cos(math.radians(angle)), distance * size * math.sin(math.radians(angle))
            there = box((point[0] + x, point[1] + y), DIGIT * len(name) + GAP, TALL)
            cost = FAR * _outside(there, frame) + sum(overlap(there, other) for other in taken)
            if cost < best:
                best, chosen, offset = cost, there, (x, y)
            if best < NOTHING:
                break
        taken.append(chosen)
        offsets.append(offset)
    return offsets


def overlap(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, tall)


def box(middle: Point, wide: float, tall: float) -> Box:
    """Of that size around that point."""
    return middle[0] - wide / 2, middle[1] - tall / 2, middle[0] + wide / 2, middle[1] + tall / 2


def _around(one: Point, other: Point) -> Box:
    """A stretch of a line that runs across or up."""
    (left, right), (low, high) = sorted((one[0], other[0])), sorted((one[1], other[1]))
    return left - STROKE, low - STROKE, right + STROKE, high + STROKE


def _outside(one: Box, frame: Box) -> float:
    return (one[2] - one[0]) * (one[3] - one[1]) - overlap(one, frame)
