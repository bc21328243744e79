"""The exact model, which waits for no rounding: it is what there is to do while a layer is rounded, by one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whisper_factory.calibration import parts
from whisper_factory.calibration.parts import Models, Part, Unit, Wanted
from whisper_factory.calibration.workers import LATER, Workers

Floats = NDArray[np.float32]
Done = tuple[list[Wanted], Floats]  # what a block does to a unit: what is wanted of each part, the residual behind it

AHEAD = 2  # blocks that are begun before they are asked for


class Exact:
    """Goes through block after block, AHEAD of who asks for them."""

    def __init__(self, models: Models, workers: Workers) -> None:
        self._models, self._workers = models, workers
        self._ends: list[Callable[[], Floats]] = []  # the residual of each unit behind the last block that was begun
        self._blocks: deque[tuple[Sequence[Unit], list[Part]]] = deque()
        self._going: deque[list[Future[Done]]] = deque()

    def feed(self, stream: Sequence[Floats], units: Sequence[Unit], blocks: Sequence[list[Part]]) -> None:
        """Begin with these blocks, on a residual of each unit."""
        self._ends = [partial(np.asarray, x) for x in stream]
        self._blocks.extend((units, block) for block in blocks)
        self._begin()

    def block(self) -> list[list[Wanted]]:
        """What is wanted of each part of the next block, of each unit."""
        wanted = [future.result()[0] for future in self._going.popleft()]
        self._begin()
        return wanted

    def end(self, place: int) -> Floats:
        """A unit's residual behind all blocks."""
        return self._ends[place]()

    def _begin(self) -> None:
        while self._blocks and len(self._going) < AHEAD:
            units, block = self._blocks.popleft()
            self._going.append([self._workers.start(partial(self._through, end, unit, block), LATER)
                                for end, unit in zip(self._ends, units, strict=True)])
            self._ends = [partial(_residual, future) for future in self._going[-1]]

    def _through(self, end: Callable[[], Floats], unit: Unit, block: list[Part]) -> Done:
        return parts.exactly(end(), unit, block, self._models)  # whose residual was begun before, and so waits for none


def _residual(future: Future[Done]) -> Floats:
    return future.result()[1]
