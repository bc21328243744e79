"""Decoding a batch token by token, whichever search chooses the tokens: who is fed, who is dropped, who waits.

All windows go on together while there is memory for their sequences. Where there is not, the last ones wait, with all
they have, until those before them have ended; a window's answer is the same either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.engines import RankingUtterance
from whisper_factory.threads import mapping

if TYPE_CHECKING:
    from whisper_factory.backends.engines import Utterance
    from whisper_factory.whisper.tokenizer import Tokenizer


Ranked: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.float32]]"  # tokens and their log-probabilities
Chosen: TypeAlias = tuple[list[int], list[int]]  # of a window: for each new sequence, the old one and the token


@dataclass(frozen=True)
class Sequenced:
    """What a search found for one window."""

    tokens: list[int]
    sum_logprob: float
    ended: bool  # by <|endoftext|>


class Suppression:
    """Which tokens may not be chosen, as indices; OpenAI's SuppressTokens and SuppressBlank."""

    def __init__(self, tokenizer: Tokenizer, barred: int | None = None) -> None:
        """
        Args:
            barred: decoding goes on after words: it may begin with an end, but not with this token.
        """
        self.always = sorted(tokenizer.suppressed_tokens)
        begins = tokenizer.blank_tokens if barred is None else (barred,)
        self.at_first = sorted({*tokenizer.suppressed_tokens, *begins})
        self._always, self._at_first = np.asarray(self.always, np.int64), np.asarray(self.at_first, np.int64)
        self._biases: dict[bool, NDArray[np.float32]] = {}

    def bias(self, n_vocab: int, first: bool) -> NDArray[np.float32]:
        """What to add to logits: zeros, and minus infinity for those tokens."""
        if first not in self._biases:
            self._biases[first] = np.zeros(n_vocab, np.float32)
            self.apply(self._biases[first][None], first)
        return self._biases[first]

    def apply(self, logits: NDArray[np.float32], first: bool) -> None:
        """Set the logits [rows, n_vocab] of those tokens to minus infinity, in place."""
        logits[:, self._at_first if first else self._always] = -np.inf


class Search(Protocol):
    """How tokens are chosen, for all windows of a batch."""

    width: int  # sequences of a window, after its first token
    count: int  # of a sequence's next tokens that it chooses among
    over: NDArray[np.bool_]  # of each window

    def rank(self, logits: NDArray[np.float32]) -> Ranked:
        """The `count` most probable tokens of each row [rows, n_vocab]; the logits may be used up. Called by threads,
        several at once."""

    def choose(self, window: int, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> Chosen:
        """Choose the next tokens of a window, and say so if it is over now.

        Args:
            tokens: of its sequences [1 or width, count], the most probable ones, best first.
            logprobs: theirs.

        Returns:
            For each of its `width` new sequences the old one it extends, and the token it is extended by.
        """

    def results(self) -> list[Sequenced]:
        """What was found, of every window; all are over."""


@dataclass
class _Part:
    """Windows that are decoded together."""

    utterance: Utterance
    windows: list[int]
    feed: NDArray[np.int64]  # [rows, new], what they are fed next
    begins: int = 0  # tokens that they had been fed when that was said first

    def room(self, width: int) -> int:
        """How many of its windows can be fed now, from the first on, and become `width` sequences each."""
        return self.utterance.room(self.feed.shape[1], width)

    def split(self, count: int) -> _Part:
        """Keep the first `count` windows; the others are returned."""
        first = len(self.feed) // len(self.windows) * count
        other = _Part(self.utterance.split(count), self.windows[count:], self.feed[first:], self.begins)
        self.windows, self.feed = self.windows[:count], self.feed[:first]
        return other


def run(utterance: Utterance, prompts: NDArray[np.int64], rules: Suppression, search: Search, threads: int = 1,
        said: Sequence[int] = ()) -> None:
    """Decode the windows of a fresh utterance until the search says that all are over, and close it.

    Args:
        prompts: [windows, length].
        threads: that rank tokens, each of some windows, where the utterance does not.
        said: tokens after the prompt of every window, after which it goes on.

    Raises:
        UserError: sequences wait for memory, and none is left that could give some back.
    """
    parts = [_Part(utterance, list(range(len(prompts))), prompts)]
    try:
        for token in said:  # one by one: some engines take no more than a prompt at once
            utterance.decode(parts[0].feed)
            parts[0].feed = np.full((len(prompts), 1), token, np.int64)
            parts[0].begins = utterance.length
        with mapping(min(threads, len(prompts))) as mapped:
            while parts:
                part = _next_part(parts, search.width)
                _step(part, rules, search, mapped)
                if search.over[part.windows].all():
                    part.utterance.close()
                    parts.remove(part)
    finally:
        for part in parts:
            part.utterance.close()


def _next_part(parts: list[_Part], width: int) -> _Part:
    """The first part that can be fed. Where not all of its windows can, the last ones become a part that waits."""
    for part in parts:
        if room := part.room(width):
            if room < len(part.windows):
                parts.insert(parts.index(part) + 1, part.split(room))
            return part
    return parts[0]  # feeding it says what is missing


def _ranked(part: _Part, rules: Suppression, search: Search, mapped: Callable[..., Iterator[Ranked]]) -> list[Ranked]:
    """Feed a part: the most probable next tokens of each window's sequences, by the engine where it can."""
    first, each = part.utterance.length == part.begins, len(part.feed) // len(part.windows)
    own = [slice(place * each, (place + 1) * each) for place in range(len(part.windows))]
    if isinstance(part.utterance, RankingUtterance):
        tokens, logprobs = part.utterance.rank(part.feed, rules.bias(part.utterance.n_vocab, first), search.count)
        return [(tokens[rows], logprobs[rows]) for rows in own]
    logits = part.utterance.decode(part.feed)

    def rank(rows: slice) -> Ranked:
        rules.apply(logits[rows], first)
        return search.rank(logits[rows])

    return list(mapped(rank, own))


def _step(part: _Part, rules: Suppression, search: Search, mapped: Callable[..., Iterator[Ranked]]) -> None:
    """Feed a part, choose tokens, and drop the windows that are over."""
    each = len(part.feed) // len(part.windows)
    ranked = _ranked(part, rules, search, mapped)
    chosen = [search.choose(window, *best) for window, best in zip(part.windows, ranked, strict=True)]
    over = search.over[part.windows]
    if over.all():
        return
    stay = places_to_keep(over)
    part.windows = [part.windows[place] for place in stay]
    part.feed = np.asarray([[token] for place in stay for token in chosen[place][1]], np.int64)
    sources = [place * each + source for place in stay for source in chosen[place][0]]
    part.utterance.select(np.asarray(sources, np.int64))


def places_to_keep(over: NDArray[np.bool_]) -> list[int]:
    """The places of those windows that are not over, the last of them where one before them is.

    Dropping a window so copies the cross-attention KV of one, which costs as much as a token or two of a window that is
    dragged along.
    """
    count = int((~over).sum())
    behind = [place for place in range(count, len(over)) if not over[place]]
    return [behind.pop() if over[place] else place for place in range(count)]
