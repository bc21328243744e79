"""Windows that are decoded together and do not wait for each other: as one ends, the next takes its place.

A place is the memory of one window and its beams; each window's rows have a length of their own, and a window may have
fewer positions than its place (shorter.py). So the products of a step are always of as many rows, until no window waits
any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnxruntime.binding import BoundStep, Caches
from whisper_factory.backends.onnxruntime.branching import branched, move
from whisper_factory.backends.onnxruntime.kvcache import KVBlock
from whisper_factory.backends.requests import check_tokens

if TYPE_CHECKING:
    from whisper_factory.backends.onnxruntime.session import Lane

ASKED = frozenset(("ranked_tokens", "ranked_logprobs"))
Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]


class OnnxRuntimePlaces:
    """See `engines.Places`."""

    def __init__(self, lane: Lane, block: KVBlock, beams: int) -> None:
        """
        Args:
            block: of `beams` rows a window.
        """
        self._lane, self._block, self._beams = lane, block, beams
        self._lengths = np.zeros(block.windows, np.int64)  # of each window's rows
        self._same = [np.zeros((beams, beams), np.int64) for _ in range(block.windows)]  # see branching.py
        self._bound: BoundStep | None = None

    @property
    def n_vocab(self) -> int:
        """Tokens that it ranks."""
        return self._lane.spec.dimensions.n_vocab

    @property
    def count(self) -> int:
        """Places; none once closed."""
        return self._block.windows

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return int(self._lengths.max(initial=0))

    def listen(self, place: int, mel: NDArray[np.float32]) -> None:
        """Encode a window, log-mel [n_mels, frames], into a place, whose sequences it forgets."""
        self._lengths[place] = 0
        self._same[place][:] = 0
        self._lane.fill(self._block.caches, mel[None], place)

    def begin(self, place: int, prompt: NDArray[np.int64], bias: NDArray[np.float32], count: int) -> Ranked:
        """Feed a window's prompt [length] to its first row: the next tokens [1, count] and their log-probabilities."""
        check_tokens(self._lane.spec, prompt[None], min(1, self.count), 0)
        self._block.reserve(max(self.length, len(prompt)))
        caches = self._block.caches.window(place, place * self._beams)
        ranked = self._run(self._step_of(caches, len(prompt)), prompt[None], np.zeros(1, np.int64), bias, count)
        self._lengths[place] = len(prompt)
        return ranked

    def branch(self, place: int, sources: list[int]) -> None:
        """Of a window: its row i continues from the past of its former row sources[i]."""
        if sources == [*range(self._beams)]:
            return
        rows, length, first = np.asarray(sources, np.int64), int(self._lengths[place]), place * self._beams
        begins, self._same[place] = branched(self._same[place], rows, length)
        move([tensor[first:first + self._beams] for tensor in self._block.past], rows, begins, length)

    def rank(self, tokens: NDArray[np.int64], bias: NDArray[np.float32], count: int) -> Ranked:
        """Feed a token to every row [rows, 1]: the next tokens [rows, count] and their log-probabilities."""
        check_tokens(self._lane.spec, tokens, self.count * self._beams, self.length)
        self._block.reserve(self.length + 1)
        self._bound = self._bound or self._step_of(self._block.caches, 1)
        ranked = self._run(self._bound, tokens, np.repeat(self._lengths, self._beams), bias, count)
        self._lengths += 1
        return ranked

    def keep(self, places: list[int]) -> None:
        """Place i holds what place places[i] held; fewer are left."""
        rows = np.concatenate([np.arange(place * self._beams, (place + 1) * self._beams) for place in places])
        self._block.select_rows(rows, self.length)
        self._block.select_windows(np.asarray(places, np.int64))
        self._lengths, self._same = self._lengths[places], [self._same[place] for place in places]
        self._bound = None

    def close(self) -> None:
        """Give the memory back."""
        self._bound = None
        self._block.close()

    def _step_of(self, caches: Caches, new: int) -> BoundStep:
        rows = len(caches.past[0])
        return BoundStep(self._lane.opened.decoder, caches, new, self._lane.spec.dimensions.n_text_state, ASKED, rows)

    def _run(self, bound: BoundStep, tokens: NDArray[np.int64], lengths: NDArray[np.int64], bias: NDArray[np.float32],
             count: int) -> Ranked:
        self._lane.go_on()
        best, logprobs = np.empty((len(lengths), count), np.int64), np.empty((len(lengths), count), np.float32)
        outputs: dict[str, NDArray[Any]] = {"ranked_tokens": best, "ranked_logprobs": logprobs}
        bound.run(self._lane.embedding.rows(tokens), lengths, bias, outputs, count)
        return best, logprobs
