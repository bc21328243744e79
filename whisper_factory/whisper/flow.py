"""Decoding windows that do not wait for each other: as one ends, the next takes its place.

A batch waits for its longest window, and of 65 windows in eights one is left over. Here as many go on together as there
are places, until no window waits any more; then ever fewer. A window's answer is the one it has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from whisper_factory.whisper.search import places_to_keep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_factory.backends.engines import Places
    from whisper_factory.whisper.search import Search, Sequenced, Suppression


@dataclass(frozen=True)
class Begun:
    """A window that was encoded into a place."""

    prompt: list[int]
    search: Search  # of this window alone
    found: Callable[[Sequenced], None]  # is told what was


Waiting: TypeAlias = "Callable[[Places, int], Begun]"  # a window that is to be decoded: has it encoded into a place


def run(places: Places, waiting: Iterator[Waiting], rules: Suppression) -> None:
    """Decode windows, and close the places.

    Args:
        waiting: one or more; others may take from it too.

    Raises:
        UserError: a prompt, or an answer, would be longer than the engine was built for.
    """
    try:
        _Flow(places, waiting, rules).run()
    finally:
        places.close()


class _Flow:
    def __init__(self, places: Places, waiting: Iterator[Waiting], rules: Suppression) -> None:
        self._places, self._waiting, self._rules = places, waiting, rules
        self._seated: list[Begun | None] = [None for _ in range(places.count)]
        self._feed: list[list[int]] = [[] for _ in range(places.count)]  # of each place, what its rows are fed next
        self._count = 0  # of tokens that are ranked, by every search alike

    def run(self) -> None:
        """Until no window waits, and all are over."""
        self._seat()
        while self._seated:
            self._step()
            self._seat()

    def _step(self) -> None:
        """One token more of every sequence."""
        width = len(self._feed[0])
        tokens = np.asarray(self._feed, np.int64).reshape(-1, 1)
        best, logprobs = self._places.rank(tokens, self._bias(False), self._count)
        for place, window in enumerate(self._seated):
            assert window is not None
            rows = slice(place * width, (place + 1) * width)
            self._choose(place, window, best[rows], logprobs[rows])

    def _choose(self, place: int, window: Begun, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        sources, chosen = window.search.choose(0, tokens, logprobs)
        if window.search.over[0]:
            window.found(window.search.results()[0])
            self._seated[place] = None
        else:
            self._places.branch(place, sources)
            self._seated[place], self._feed[place] = window, chosen

    def _seat(self) -> None:
        """Let waiting windows in where there is a place; what no window takes is given up."""
        for place in range(len(self._seated)):
            while self._seated[place] is None and (begin := next(self._waiting, None)):
                window = begin(self._places, place)
                self._count = window.search.count
                ranked = self._places.begin(place, np.asarray(window.prompt, np.int64), self._bias(True), self._count)
                self._choose(place, window, *ranked)
        free = np.asarray([window is None for window in self._seated])
        if free.any():
            kept = places_to_keep(free)
            if kept:
                self._places.keep(kept)
            self._seated, self._feed = ([self._seated[place] for place in kept], [self._feed[place] for place in kept])

    def _bias(self, first: bool) -> NDArray[np.float32]:
        return self._rules.bias(self._places.n_vocab, first)
