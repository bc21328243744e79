"""A few threads that do what is waited for first, and what can wait when nothing else is to be done.

Rounding a layer keeps one thread busy. Meanwhile the others go on with the exact model, which waits for no rounding.
NumPy lets go of the interpreter's lock where it matters.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import count
from queue import PriorityQueue
from types import TracebackType
from typing import TypeVar

from whisper_factory import threads

T = TypeVar("T")
R = TypeVar("R")

NOW, LATER, NEVER = 0, 1, 2  # NEVER: after all work, the end


class Workers:
    """`threads.helpers` of them, while it is open. Results are the same for any."""

    def __init__(self) -> None:
        self._queue: PriorityQueue[tuple[int, int, Callable[[], None] | None]] = PriorityQueue()
        self._places, self._closing = count(), False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads.helpers())]

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._closing = True  # what nobody has begun is left undone
        for _ in self._threads:
            self._queue.put((NEVER, next(self._places), None))
        for thread in self._threads:
            thread.join()

    def start(self, function: Callable[[], R], when: int = NOW) -> Future[R]:
        """Have it done: before all that was started for LATER, after all else that was started before."""
        future: Future[R] = Future()

        def work() -> None:
            if self._closing:
                future.cancel()  # who waits for it is told
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # whoever waits for it is told
                future.set_exception(error)

        self._queue.put((when, next(self._places), work))
        return future

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The function's results, in order, each computed while those before it are used; few are held at once."""
        return threads.in_order(lambda item: self.start(partial(function, item)), items, len(self._threads))

    def _work(self) -> None:
        while (work := self._queue.get()[2]) is not None:
            work()
