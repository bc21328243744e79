"""Running an engine: encode windows, then decode tokens against KV caches that are bound, not passed.

What takes memory, and when (bytes; V tokens in the vocabulary, S the state's width, four bytes a number):

- load, in this order: the decoder's session, the encoder's, the KV caches (sizes.py). A session maps its weights. A
  quantised product of K by N repacks them: K * N * (1 + 8 / block) in private memory, with 4 bits half of the K * N;
  a decoder's float product 4 * K * N. The file's pages are let go after each product, so the highest point of the load
  is the head's: V * S once more in the file's precision (integers 1 byte; float16 is first widened, to 4 * V * S).
  A float32 encoder stays mapped in paged mode, and is repacked in contiguous mode; a float16 one is widened: 4 bytes a
  weight;
- encode: the windows' log-mel, 4 * windows * n_mels * frames; cross-attention's KV (sizes.py); the activations of one
  window in the session's arena, which contiguous mode keeps: measured with tiny.en and base, 48 (8 bits) to 76 * S
  bytes a position (frames / 2);
- decode: logits and log-probabilities 2 * 4 * rows * V in the decoder's arena (and 4 * rows * V for a caller who wants
  logits; a search does not), self-attention's KV (sizes.py), and the rest of that arena, small but for the prompt of a
  large batch. Reordering beams puts one row aside at most.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.embedding import TokenEmbedding
from whisper_factory.backends.onnxruntime.binding import BoundStep, Caches, bind_input, bind_output
from whisper_factory.backends.onnxruntime.files import EMBEDDING
from whisper_factory.backends.onnxruntime.kvcache import KVBlock, KVMemory
from whisper_factory.backends.onnxruntime.opened import Opened
from whisper_factory.backends.onnxruntime.places import OnnxRuntimePlaces
from whisper_factory.backends.onnxruntime.shorter import Part
from whisper_factory.backends.onnxruntime.sizes import cross_in_bytes, lanes_of
from whisper_factory.backends.requests import check_mel, check_tokens, windows_of
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.threads import Stopped, physical_cores
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

Array = NDArray[Any]


class Lane:
    """A KV cache, and sessions that it may share. One batch at a time: `encode` closes what is left of the one before.
    """

    def __init__(self, spec: EngineSpec, threads: int, opened: Opened, embedding: TokenEmbedding, memory: KVMemory,
                 stopped: Event | None = None) -> None:
        """
        Args:
            stopped: once it is set, what is begun ends by `Stopped`.
        """
        self.spec, self.threads = spec, threads
        self.opened, self.embedding, self.memory = opened, embedding, memory
        self.unbiased = np.zeros(spec.dimensions.n_vocab, np.float32)
        self._stopped = stopped

    def go_on(self) -> None:
        """Raise `Stopped` if so it is."""
        if self._stopped and self._stopped.is_set():
            raise Stopped

    def encode(self, mel: NDArray[np.float32]) -> OnnxRuntimeUtterance:
        """Run the encoder on log-mel windows and project the cross-attention KV.

        One window after the other: a window fills the processor, and so the encoder's activations take the memory
        of one, and a window's result does not depend on its batch.

        Args:
            mel: float32 [batch, n_mels, frames]; frames even, at most spec.window_frames.

        Returns:
            An utterance of one row a window.

        Raises:
            UserError: more or longer windows than the engine was built for, or another number of mels.
        """
        check_mel(self.spec, mel.shape)
        batch, _, frames = mel.shape
        block = self.memory.open(batch, self._positions(frames))
        try:
            self.fill(block.caches, np.ascontiguousarray(mel, np.float32))
        except BaseException:
            block.close()
            raise
        return OnnxRuntimeUtterance(self, block)

    def fill(self, caches: Caches, mel: NDArray[np.float32], first: int = 0) -> None:
        """Encode log-mel windows [windows, n_mels, frames] into the places from `first` on."""
        binding, positions = self.opened.encoder.io_binding(), self._positions(mel.shape[-1])
        for place, window in enumerate(mel, first):
            self.go_on()
            bind_input(binding, "mel", window[None])
            parts = [Part(name, array[place:place + 1], positions) for name, array in caches.cross_by_name()]
            for part in parts:
                bind_output(binding, part.name, part.written)
            self.opened.between()
            self.opened.encoder.run_with_iobinding(binding, self.opened.encoder_run)
            for part in parts:
                part.spread()
        self.opened.between()

    def places(self, count: int, frames: Collection[int], beams: int) -> OnnxRuntimePlaces:
        """See `engines.Lane`. Not always the most frames have the most positions: 3000 have no anchor."""
        return OnnxRuntimePlaces(self, self.memory.open(count, max(map(self._positions, frames)), beams), beams)

    def _positions(self, frames: int) -> int:
        return frames // 2 + (self.spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)


class OnnxRuntimeEngine(Lane):
    """A loaded engine."""

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        spec, threads = EngineSpec.load(directory), threads or physical_cores()
        opened = Opened(directory, spec, threads)
        embedding = TokenEmbedding(directory / EMBEDDING, spec.dimensions, spec.precision, cross_in_bytes(spec))
        super().__init__(spec, threads, opened, embedding, KVMemory(spec))
        self._second: KVMemory | None = None

    def encode(self, mel: NDArray[np.float32]) -> OnnxRuntimeUtterance:
        """As a lane's, by all threads."""
        self.opened.use(self.threads)
        return super().encode(mel)

    def lanes(self, stopped: Event) -> list[Lane]:
        """See `engines.LanesEngine`: two, of integers; a pool of pages that is smaller than all need is not shared.

        With T threads their sessions have T - 1: each lane's thread is one of them while it runs an operator, so that
        together they are T. With one thread there is one lane.
        """
        if not lanes_of(self.spec):
            return []
        self.memory.close()
        self.opened.use(max(1, self.threads - 1))
        memories = [self.memory]
        if self.threads > 1:
            self._second = self._second or KVMemory(self.spec)
            memories.append(self._second)
        return [Lane(self.spec, 1, self.opened, self.embedding, memory, stopped) for memory in memories]


class OnnxRuntimeUtterance:
    """Encoded windows being decoded. See `engines.Utterance`."""

    def __init__(self, engine: Lane, block: KVBlock, length: int = 0) -> None:
        self.length = length
        self._engine, self._block = engine, block
        self._bound: BoundStep | None = None

    @property
    def rows(self) -> int:
        """Sequences being decoded; 0 once closed."""
        return self._block.rows

    @property
    def n_vocab(self) -> int:
        """Tokens that it ranks."""
        return self._engine.spec.dimensions.n_vocab

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new]; the logits [rows, n_vocab] after the last of them, the caller's to keep.

        Raises:
            UserError: the sequences would be longer than the engine was built for, or the KV cache is full.
            ValueError: another number of rows than there is, several tokens after the first step, no token, or closed.
        """
        logits = np.empty((self.rows, self._engine.spec.dimensions.n_vocab), np.float32)
        self._run(tokens, self._engine.unbiased, 1, {"logits": logits})
        return logits

    def rank(self, tokens: NDArray[np.int64], bias: NDArray[np.float32], count: int
             ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `decode`. See `engines.RankingUtterance`."""
        best = np.empty((self.rows, count), np.int64)
        logprobs = np.empty((self.rows, count), np.float32)
        self._run(tokens, bias, count, {"ranked_tokens": best, "ranked_logprobs": logprobs})
        return best, logprobs

    def _run(self, tokens: NDArray[np.int64], bias: NDArray[np.float32], count: int, outputs: dict[str, Array]) -> None:
        check_tokens(self._engine.spec, tokens, self.rows, self.length)
        self._engine.go_on()
        new = tokens.shape[1]
        embedded = self._engine.embedding.rows(tokens)
        self._block.reserve(self.length + new)
        if self._bound is None or (self._bound.new, self._bound.asked) != (new, frozenset(outputs)):
            self._bound = self._bind(new, frozenset(outputs))
        self._bound.run(embedded, self.length, bias, outputs, count)
        self.length += new

    def _bind(self, new: int, asked: frozenset[str]) -> BoundStep:
        spec = self._engine.spec
        return BoundStep(self._engine.opened.decoder, self._block.caches, new, spec.dimensions.n_text_state, asked,
                         self.rows if cross_in_bytes(spec) else 1)

    def select(self, rows: NDArray[np.int64]) -> None:
        """Row i continues from the past of former row rows[i].

        Rows of one window must come out adjacent, and equally many for each window that is left.

        Raises:
            UserError: more rows or windows than the engine was built for.
            ValueError: rows that do not exist, or not as said above.
        """
        rows = np.asarray(rows, np.int64)
        if self.rows and np.array_equal(rows, np.arange(self.rows)):
            return
        windows = windows_of(self._engine.spec, rows, self.rows, self._block.windows)
        before = self.rows, self._block.windows
        self._block.select_rows(rows, self.length)
        self._block.select_windows(windows)
        if (self.rows, self._block.windows) != before:
            self._bound = None

    def rewind(self) -> None:
        """Forget every token, and give their pages back; rows and their windows stay as they are."""
        self.length = 0
        self._block.reserve(0)

    def room(self, new: int, beams: int) -> int:
        """How many windows, from the first on, can be decoded for `new` more tokens in `beams` rows each."""
        return self._block.room(self.length + new, beams)

    def split(self, windows: int) -> OnnxRuntimeUtterance:
        """Leave all but the first `windows` windows, 1 or more, to an utterance of its own."""
        self._bound = None
        return OnnxRuntimeUtterance(self._engine, self._block.split(windows, self.length), self.length)

    def close(self) -> None:
        """Give the memory back: to the system in paged mode, to the next utterance in contiguous mode."""
        self._bound = None
        self._block.close()
