"""Greedy search of more windows than there are rows: as some end, others take their places.

Windows of a batch end after unlike numbers of tokens, and the longest (a loop that nothing stops has 224) would keep
the others' rows idle. Here, once a quarter of the rows have ended, the last quarter is made free, by moving the rows
there that go on, and waiting windows are encoded into it. It is always the same quarter, so one encoder and one prompt,
bound once, serve for all; every row has a length of its own, so the steps need not know. When no window waits any more,
fewer rows go on, as in a batch.

As in greedy.py, the host hears of a token one step behind. Meanwhile the audio of the next windows is laid ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.device import Slot
from whisper_factory.backends.onnxruntime_cuda.greedy import Answers, heard, rows_to_keep
from whisper_factory.backends.onnxruntime_cuda.limits import TOGETHER
from whisper_factory.backends.onnxruntime_cuda.utterance import CudaUtterance

if TYPE_CHECKING:
    from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine

NOBODY = -1  # the window of a row that has none
SILENCE = np.zeros(0, np.float32)


class CudaStream(CudaUtterance):
    """Windows of which the first are encoded. See `engines.StreamingEngine`."""

    def __init__(self, engine: CudaEngine, audio: Sequence[NDArray[np.float32]], rows: int, frames: int) -> None:
        """
        Args:
            audio: of all windows; the first `rows` of them are encoded by the caller.
        """
        super().__init__(engine, rows, engine.hearing.positions(frames))
        self._audio, self._frames = audio, frames

    def greedy(self, prompts: NDArray[np.int64], first: Sequence[int], later: Sequence[int], eot: int,
               limits: Sequence[int]) -> list[tuple[list[int], float]]:
        """See `engines.GreedyUtterance`."""
        self._check(prompts[: self.rows])
        self._engine.forbid(first, later)
        answers = Answers(eot, limits)
        _Search(self._engine, self._audio, self._frames, self.rows, prompts, answers).run()
        return list(zip(answers.tokens, answers.sums, strict=True))


class _Search:
    """The rows, and the windows that they are of."""

    def __init__(self, engine: CudaEngine, audio: Sequence[NDArray[np.float32]], frames: int, rows: int,
                 prompts: NDArray[np.int64], answers: Answers) -> None:
        self._engine, self._audio, self._frames, self._prompts, self._answers = engine, audio, frames, prompts, answers
        self._cross = engine.hearing.positions(frames)
        self._windows = list(range(rows))
        self._lengths = np.zeros(rows, np.int32)  # in tokens, when all that was asked for is done
        self._waiting = deque(range(rows, len(audio)))
        self._refilled = min(TOGETHER, max(1, rows // 4))  # at once: the last rows
        self._laid: list[Future[None]] = []  # of the windows that are next
        self._slots = cycle(engine.slots)
        self._going: deque[tuple[Slot, list[int]]] = deque()  # steps not heard of yet, and the rows to hear of

    def run(self) -> None:
        """Decode until every window has ended."""
        self._prompt(0)
        while self._waiting or not all(map(self._over, range(len(self._windows)))):
            while len(self._going) < len(self._engine.slots):
                self._step()
            self._hear()
            self._lay()
            self._rearrange()

    def _over(self, row: int) -> bool:
        return self._windows[row] == NOBODY or self._answers.over(self._windows[row])

    def _step(self) -> None:
        rows = len(self._windows)
        self._engine.step(rows, rows, self._cross).run()
        self._lengths += 1
        self._fetch(0)

    def _prompt(self, first: int) -> None:
        """Begin the windows of the rows from `first` on."""
        engine, rows, new = self._engine, len(self._windows) - first, self._prompts.shape[1]
        prompts = self._prompts[self._windows[first:]]  # a row that is nobody's gets any
        self._lengths[first:] = 0
        engine.device.upload(engine.prompt.address, np.ascontiguousarray(prompts, np.int64))
        engine.device.upload(engine.count.address, np.array([new], np.int32))
        self._upload_lengths()
        engine.step(rows, rows, self._cross, new, first).run()
        self._lengths[first:] += new
        self._fetch(first)

    def _fetch(self, first: int) -> None:
        slot = next(self._slots)
        slot.fetch(self._engine.chosen.address)
        self._going.append((slot, [row for row in range(first, len(self._windows)) if not self._over(row)]))

    def _hear(self) -> None:
        """Of the oldest step."""
        slot, rows = self._going.popleft()
        tokens, logprobs = heard(slot)
        self._answers.add([self._windows[row] for row in rows], tokens[rows], logprobs[rows])
        if any(map(self._over, rows)):
            self._upload_lengths()

    def _upload_lengths(self) -> None:
        """Rows that have ended begin anew each time, lest they grow beyond the cache before others end."""
        self._lengths[[row for row in range(len(self._windows)) if self._over(row)]] = 0
        self._engine.device.upload(self._engine.past.address, self._lengths)

    def _lay(self) -> None:
        """Lay the audio of the next windows ready. A token of those that were in their places has been heard."""
        if self._waiting and not self._laid:
            audio = [self._audio[window] for window in islice(self._waiting, self._refilled)]
            audio += [SILENCE] * (self._refilled - len(audio))
            self._laid = self._engine.hearing.lay(len(self._windows) - self._refilled, audio, self._frames)

    def _rearrange(self) -> None:
        """Let waiting windows in where enough rows have ended; where none waits, let fewer rows go on."""
        over = [self._over(row) for row in range(len(self._windows))]
        if self._waiting and sum(over) >= self._refilled:
            self._hear_all()
            self._refill()
        elif not self._waiting and not all(over) and (kept := rows_to_keep(over)) is not None:
            self._hear_all()
            self._move(kept)

    def _hear_all(self) -> None:
        """Of what is under way, before its rows move."""
        while self._going:
            self._hear()

    def _refill(self) -> None:
        count = len(self._windows)
        first, sources = count - self._refilled, list(range(count))
        free = (row for row in range(first) if self._over(row))
        for row in range(first, count):
            if not self._over(row):
                sources[next(free)] = row
        self._move(sources)
        self._windows[first:] = [self._waiting.popleft() if self._waiting else NOBODY for _ in range(self._refilled)]
        self._engine.hearing.hear(first, self._laid, self._frames)
        self._laid = []
        self._prompt(first)

    def _move(self, sources: Sequence[int]) -> None:
        """Row i becomes former row sources[i], with the token that it chose last."""
        engine = self._engine
        engine.caches.select_rows(sources, int(self._lengths.max()))
        engine.caches.select_windows(sources, self._cross)
        self._windows = [self._windows[row] for row in sources]
        self._lengths = self._lengths[list(sources)]
        last = [0 if window == NOBODY else self._answers.tokens[window][-1] for window in self._windows]
        engine.device.upload(engine.chosen.address, np.asarray(last, np.int64))
        self._upload_lengths()
