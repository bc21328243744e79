"""Greedy search while the device chooses the tokens: the host is told of them one step behind.

A step is set going before the tokens of the one before are known, as it needs none of them from the host. So the last
step of an utterance is one too many, unless a limit ends it, and is not listened to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.device import Slot, Tensor


class Stepping(Protocol):
    """An utterance whose device chooses."""

    rows: int

    def feed(self, tokens: NDArray[np.int64]) -> None:
        """Decode tokens [rows, new], and choose the next."""

    def step(self) -> None:
        """Decode the tokens that were chosen, and choose the next."""

    def select(self, rows: NDArray[np.int64]) -> None:
        """Row i continues from the past of former row rows[i]."""


class Answers:
    """What was chosen for each window."""

    def __init__(self, eot: int, limits: Sequence[int]) -> None:
        self.tokens: list[list[int]] = [[] for _ in limits]
        self.sums = [0.0] * len(limits)
        self._eot, self._limits = eot, limits

    def over(self, window: int) -> bool:
        """Whether a window has ended."""
        tokens = self.tokens[window]
        return bool(tokens) and (tokens[-1] == self._eot or len(tokens) >= self._limits[window])

    def add(self, windows: Sequence[int], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """One step's choice, of rows that are these windows'."""
        for window, token, logprob in zip(windows, tokens.tolist(), logprobs.tolist(), strict=True):
            if not self.over(window):
                self.tokens[window].append(token)
                self.sums[window] += logprob


def search(utterance: Stepping, slots: Sequence[Slot], chosen: Tensor, prompts: NDArray[np.int64], eot: int,
           limits: Sequence[int]) -> list[tuple[list[int], float]]:
    """Decode until every window has ended. See `engines.GreedyUtterance.greedy`.

    Args:
        slots: two, for what is heard and for what is under way.
        chosen: where the device leaves tokens, int64, and behind those of all rows there can be, float32
            log-probabilities.
    """
    answers, windows = Answers(eot, limits), list(range(len(prompts)))
    utterance.feed(prompts)
    slots[0].fetch(chosen.address)
    steps = 1  # set going
    while not all(map(answers.over, windows)):
        ahead = steps < max(limits)
        if ahead:
            utterance.step()
            slots[steps % 2].fetch(chosen.address)
        _hear(slots[(steps - 1) % 2], answers, windows)
        steps += ahead
        kept = rows_to_keep([answers.over(window) for window in windows])
        if ahead and kept is not None and not all(map(answers.over, windows)):
            _hear(slots[(steps - 1) % 2], answers, windows)  # the step that is under way, before its rows move
            windows = [windows[row] for row in kept]
            utterance.select(np.asarray(kept, np.int64))
            if not all(map(answers.over, windows)):
                utterance.feed(np.asarray([[answers.tokens[window][-1]] for window in windows], np.int64))
                slots[steps % 2].fetch(chosen.address)
                steps += 1
    return list(zip(answers.tokens, answers.sums, strict=True))


def _hear(slot: Slot, answers: Answers, windows: Sequence[int]) -> None:
    tokens, logprobs = heard(slot)
    answers.add(windows, tokens[: len(windows)], logprobs[: len(windows)])


def heard(slot: Slot) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What was chosen for all rows there can be, and its log-probabilities, once it is here."""
    slot.wait()
    most = slot.array.nbytes // 12
    return slot.array[: 8 * most].view(np.int64), slot.array[8 * most :].view(np.float32)


def rows_to_keep(over: Sequence[bool]) -> list[int] | None:
    """The rows to decode on with once half or fewer go on, a power of two, some of which may be over. None: all.

    A row that goes on stays where it is if it can, since moving it copies its cross-attention KV.
    """
    waiting = [row for row, ended in enumerate(over) if not ended]
    count = 1 << (len(waiting) - 1).bit_length() if waiting else 0
    if not count or 2 * count > len(over):
        return None
    behind = [row for row in waiting if row >= count]
    return [behind.pop(0) if over[row] and behind else row for row in range(count)]
