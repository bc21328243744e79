"""What every engine offers, whichever backend built it, and what some offer besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from whisper_factory.engine_spec import EngineSpec

if TYPE_CHECKING:  # planning must not pay for importing numpy
    from collections.abc import Collection, Sequence
    from contextlib import AbstractContextManager
    from threading import Event

    import numpy as np
    from numpy.typing import NDArray


class Utterance(Protocol):
    """A batch of encoded windows being decoded: their cross-attention KV and the growing self-attention KV.

    Rows are sequences. After `Engine.encode` there is one row per window; `select` repeats, reorders or
    drops rows (beams of one window stay adjacent). All rows have the same length. Where memory for sequences is
    short, `room` says how many windows can go on, and `split` lets the others wait.
    """

    length: int  # tokens decoded so far, in every row

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new] and return the logits [rows, n_vocab] after the last of them.

        Several new tokens at once are for the prompt only (`length == 0`).
        """

    def select(self, rows: NDArray[np.int64]) -> None:
        """Row i continues from the past of former row rows[i]; len(rows) may differ from before."""

    def rewind(self) -> None:
        """Forget every token: back to length 0, the cross-attention KV kept."""

    def room(self, new: int, beams: int) -> int:
        """How many windows, from the first on, can be decoded for `new` more tokens in `beams` rows each."""

    def split(self, windows: int) -> Utterance:
        """Leave all but the first `windows` windows, with their past, to an utterance of its own."""

    def close(self) -> None:
        """Give the KV cache's memory back (what that means is the KV mode's business)."""


@runtime_checkable
class RankingUtterance(Protocol):
    """An utterance whose engine ranks the next tokens itself, beside `decode`."""

    @property
    def n_vocab(self) -> int:
        """Tokens that it ranks."""

    def rank(self, tokens: NDArray[np.int64], bias: NDArray[np.float32], count: int
             ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `decode`, but of the logits the `count` best of each row, best first, of equal ones among them the
        lower first.

        Args:
            bias: [n_vocab], added to them: zeros, and minus infinity where a token may not be.

        Returns:
            Tokens [rows, count], and their log-probabilities.
        """


@runtime_checkable
class GreedyUtterance(Protocol):
    """An utterance, fresh, whose device can do a greedy search by itself: no logits come to the host."""

    def greedy(self, prompts: NDArray[np.int64], first: Sequence[int], later: Sequence[int], eot: int,
               limits: Sequence[int]) -> list[tuple[list[int], float]]:
        """Decode every window until it has ended.

        Args:
            prompts: [windows, 2 or more].
            first: tokens that may not begin an answer.
            later: tokens that may not be chosen after that.
            eot: the token that ends an answer.
            limits: the most tokens of each window, 1 or more.

        Returns:
            For each window its tokens, `eot` included where it was chosen, and the sum of their log-probabilities.
        """


class Engine(Protocol):
    """A loaded engine. One batch at a time: `encode` closes what is left of the one before."""

    spec: EngineSpec
    threads: int  # that one operator may use

    def encode(self, mel: NDArray[np.float32]) -> Utterance:
        """Run the encoder on log-mel windows [batch, n_mels, frames] and project the cross-attention KV.

        `frames` is even and at most spec.window_frames; below 3000 the end anchor is appended.
        """


@runtime_checkable
class ListeningEngine(Protocol):
    """An engine that makes the log-mel itself, beside `encode`."""

    def listen(self, audio: Sequence[NDArray[np.float32]], frames: int) -> Utterance:
        """As `encode`, of audio [samples] at 16 kHz each, in log-mel windows of `frames` frames or a few more."""


@runtime_checkable
class KeepingEngine(Protocol):
    """An engine that gives memory back with every batch, and is slower for it."""

    def keeping(self) -> AbstractContextManager[None]:
        """While this lasts, memory stays at hand for the next batch; at its end what is not used goes back."""


class Places(Protocol):
    """Memory for windows that are decoded together, of `beams` rows each, adjacent. They begin and end apart."""

    count: int  # of windows
    n_vocab: int

    def listen(self, place: int, mel: NDArray[np.float32]) -> None:
        """Encode a window, log-mel [n_mels, frames], into a place, whatever was there before.

        It is what it is alone, but for float rounding, where others, or the place, have more frames.
        """

    def begin(self, place: int, prompt: NDArray[np.int64], bias: NDArray[np.float32], count: int
              ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Feed a prompt [length] to the first row of a window that was listened to. Else as `rank`, of this row."""

    def branch(self, place: int, sources: list[int]) -> None:
        """Of a window: row i continues from the past of its former row sources[i]."""

    def rank(self, tokens: NDArray[np.int64], bias: NDArray[np.float32], count: int
             ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Feed a token to every row [rows, 1]. See `RankingUtterance`."""

    def keep(self, places: list[int]) -> None:
        """Place i holds what place places[i] held; the others, one or more, are given up."""

    def close(self) -> None:
        """Give the memory back."""


class Lane(Engine, Protocol):
    """An engine that shares its weights with others."""

    def places(self, count: int, frames: Collection[int], beams: int) -> Places:
        """For `count` windows at a time, each of any of `frames` mel frames; until `encode`, or the next ones."""


@runtime_checkable
class LanesEngine(Protocol):
    """An engine whose windows need not end together, and that decodes two sets of them at once where it has threads."""

    def lanes(self, stopped: Event) -> Sequence[Lane]:
        """What hears windows, each in a thread of its own, all at once; none where nothing is gained.

        Good until the engine encodes, or is asked again.

        Args:
            stopped: soon after it is set, what they do ends by `threads.Stopped`.
        """


@runtime_checkable
class StreamingEngine(Protocol):
    """An engine whose windows need not end together: when some have, others take their places."""

    def stream(self, audio: Sequence[NDArray[np.float32]], frames: int, rows: int) -> Utterance:
        """As `ListeningEngine.listen`, of more windows than the `rows` that are decoded at once.

        Returns:
            A `GreedyUtterance` of all of them, which offers nothing else.
        """


@runtime_checkable
class GeneratingEngine(Protocol):
    """A loaded engine whose runtime decodes whole answers by itself."""

    spec: EngineSpec
    threads: int

    def generate(
        self, mel: NDArray[np.float32], prompts: NDArray[np.int64], max_new_tokens: int, num_beams: int
    ) -> list[list[int]]:
        """Encode log-mel windows [batch, n_mels, frames] and decode each after its prompt [batch, length].

        Returns the tokens chosen for each window, without prompt, <|endoftext|> and what follows it.
        """
