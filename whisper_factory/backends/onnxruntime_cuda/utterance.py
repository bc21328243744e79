"""Windows that were encoded on a device, being decoded there: batches, beams, and those that wait for memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.utterance import ContiguousUtterance
from whisper_factory.backends.onnxruntime_cuda.greedy import search
from whisper_factory.backends.requests import windows_of

if TYPE_CHECKING:
    from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine


class CudaUtterance(ContiguousUtterance):
    """Encoded windows being decoded. See `engines.Utterance`.

    Where a pool has no pages for the beams of all windows, the last ones wait, not yet begun, behind the windows of the
    others, and move to their place when those have ended.
    """

    def __init__(self, engine: CudaEngine, windows: int, cross: int, first: int = 0) -> None:
        """
        Args:
            first: windows before these, which are decoded before them.
        """
        super().__init__(engine.spec, engine.caches, windows, cross)
        self._engine, self._first = engine, first

    def room(self, new: int, beams: int) -> int:
        """How many windows, from the first on, can be decoded in `beams` rows each: all that have begun."""
        if self.length:
            return self._windows
        return 0 if self._waits() else self._caches.room(self._windows, beams)

    def _waits(self) -> bool:
        """Whether there are windows before these."""
        return any(other._first < self._first for other in self._engine.open)

    def split(self, windows: int) -> CudaUtterance:
        """Leave all but the first `windows` windows, 1 or more, which none has begun, to an utterance of its own."""
        if self.length or not 0 < windows < self._windows:
            return super().split(windows)
        other = CudaUtterance(self._engine, self._windows - windows, self._cross, self._first + windows)
        self.rows = self._windows = windows
        self._engine.open.insert(self._engine.open.index(self) + 1, other)
        return other

    def select(self, rows: NDArray[np.int64]) -> None:
        """See `ContiguousUtterance.select`.

        Raises:
            UserError: besides, there is no memory for the rows; all is as it was.
        """
        before = self.rows, self._windows
        if len(rows) > self.rows:
            windows_of(self._spec, np.asarray(rows, np.int64), *before)  # refused before memory is taken for them
            self._hold(len(rows))
        super().select(rows)
        if self.rows < before[0] or self._windows < before[1]:
            self._hold(self.rows)

    def _hold(self, rows: int) -> None:
        """Have memory for so many rows, and for all windows that are open."""
        windows = max((one._first + one._windows for one in self._engine.open), default=0)
        self._caches.hold(rows, windows, self._cross)

    def close(self) -> None:
        """Give the memory back, as far as the cache's mode does that; a second time does nothing."""
        if self in self._engine.open:
            self._engine.open.remove(self)
            self.rows = 0
            self._hold(0)

    def _begin(self) -> None:
        """Take the place of the windows that were before these.

        Raises:
            ValueError: some are still there.
        """
        if self._waits():
            raise ValueError("these windows wait until those before them have ended")
        if self._first:
            self._caches.select_windows(range(self._first, self._first + self._windows), self._cross)
            self._first = 0
            self._hold(self.rows)

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new]; the logits [rows, n_vocab] after the last of them, the caller's to keep.

        Raises:
            UserError, ValueError: as `_check`.
        """
        engine = self._engine
        self.feed(tokens)
        found = np.empty((self.rows, engine.spec.dimensions.n_vocab), np.float32)
        engine.device.download(engine.logits.address, found)
        return found

    def feed(self, tokens: NDArray[np.int64]) -> None:
        """Set the device to decode tokens [rows, new], and to choose the next."""
        engine, new = self._engine, tokens.shape[-1]
        self._check(tokens)
        if not self.length:
            self._begin()
        place = engine.prompt if new > 1 else engine.chosen
        engine.device.upload(place.address, np.ascontiguousarray(tokens, np.int64))
        engine.device.upload(engine.past.address, np.full(self.rows, self.length, np.int32))
        if new > 1:
            engine.device.upload(engine.count.address, np.array([new], np.int32))
        engine.step(self.rows, self._windows, self._cross, new).run()
        self.length += new

    def step(self) -> None:
        """Set the device to decode the tokens that it chose, and to choose the next."""
        self._engine.step(self.rows, self._windows, self._cross).run()
        self.length += 1

    def greedy(self, prompts: NDArray[np.int64], first: Sequence[int], later: Sequence[int], eot: int,
               limits: Sequence[int]) -> list[tuple[list[int], float]]:
        """See `engines.GreedyUtterance`."""
        self._engine.forbid(first, later)
        return search(self, self._engine.slots, self._engine.chosen, prompts, eot, limits)
