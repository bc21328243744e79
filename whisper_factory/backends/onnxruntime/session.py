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
  large batch. Reordering beams copies the rows
  that move, of one tensor at a time: at most 1 / (2 L) of self-attention's KV.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory import file_pages
from whisper_factory.backends.onnx_graph.embedding import TokenEmbedding
from whisper_factory.backends.onnx_graph.runtime import (
    open_session,
    return_freed_memory,
    return_large_blocks,
    returning_arena,
)
from whisper_factory.backends.onnxruntime.files import DECODER, EMBEDDING, ENCODER
from whisper_factory.backends.onnxruntime.kvcache import KVBlock, KVMemory
from whisper_factory.backends.onnxruntime.sizes import cross_in_bytes
from whisper_factory.backends.requests import check_mel, check_tokens, windows_of
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.threads import physical_cores
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[Any]


def _bind_input(binding: onnxruntime.IOBinding, name: str, array: Array) -> None:
    """Bind memory, not its present content: the array must outlive the binding and stay where it is."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _bind_output(binding: onnxruntime.IOBinding, name: str, array: Array) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _names(kind: str, layers: int) -> list[str]:
    """Names of a KV cache's tensors in the graphs, in the order of `Tensors`."""
    return [f"{kind}_{part}_{layer}" for layer in range(layers) for part in "kv"]


def _cross(block: KVBlock, layers: int) -> list[tuple[str, Array]]:
    """Cross-attention's tensors by their names in the graphs: keys and values, and what those in bytes have beside."""
    names = _names("cross", layers)
    found = [*zip(names, block.cross, strict=True)]
    if block.beside:
        names = [*(f"{name}_scale" for name in names), *(f"{name}_sum" for name in names[::2])]
        found += zip(names, block.beside, strict=True)
    return found


class OnnxRuntimeEngine:
    """A loaded engine. One batch at a time: `encode` closes what is left of the one before."""

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        self.spec = EngineSpec.load(directory)
        self.threads = threads or physical_cores()
        self._encoder_run = None
        self._returns = self.spec.kv_cache.mode == "paged"  # all that is done with
        if self._returns:
            return_large_blocks()
            self._encoder_run = returning_arena()
        self._open(directory)
        self.embedding = TokenEmbedding(directory / EMBEDDING, self.spec.dimensions, self.spec.precision,
                                        cross_in_bytes(self.spec))
        self.memory = KVMemory(self.spec)
        self.unbiased = np.zeros(self.spec.dimensions.n_vocab, np.float32)

    def _open(self, directory: Path) -> None:
        """Open the sessions; what that leaves behind goes back to the system."""
        file_pages.let_go(file_pages.code())  # that imports ran through
        integers = self.spec.precision.bits > 0
        optimize = not integers or cross_in_bytes(self.spec)  # else there is nothing to gain, and 10 ms to lose
        # The decoder first: while a session repacks a matrix it has it twice, and the decoder has the largest.
        self.decoder = open_session(directory / f"{DECODER}.onnx", self.threads, optimize=optimize)
        prepack = integers or (not self._returns and self.spec.precision.name == "float32")
        self.encoder = open_session(directory / f"{ENCODER}.onnx", self.threads, prepack=prepack, optimize=optimize,
                                    exact_arena=self._returns)
        if self.spec.precision.name == "float16":  # widening leaves 6 to 21 MB behind (tiny.en)
            return_freed_memory()
        self._code = file_pages.code()
        file_pages.let_go(self._code)

    def _between(self) -> None:
        """What the stage before has left behind goes back to the system."""
        if self._returns:
            return_freed_memory()
            file_pages.let_go(self._code)

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
        length = frames // 2 + (self.spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)
        block = self.memory.open(batch, length)
        mel = np.ascontiguousarray(mel, np.float32)
        binding = self.encoder.io_binding()
        for window in range(batch):
            _bind_input(binding, "mel", mel[window:window + 1])
            for name, array in _cross(block, self.spec.dimensions.n_text_layer):
                _bind_output(binding, name, array[window:window + 1])
            self._between()
            self.encoder.run_with_iobinding(binding, self._encoder_run)
        self._between()
        return OnnxRuntimeUtterance(self, block)


class OnnxRuntimeUtterance:
    """Encoded windows being decoded. See `backends.Utterance`."""

    def __init__(self, engine: OnnxRuntimeEngine, block: KVBlock, length: int = 0) -> None:
        self.length = length
        self._engine, self._block = engine, block
        self._binding: onnxruntime.IOBinding | None = None
        self._asked: set[str] = set()  # the outputs that it binds

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
        """As `decode`. See `backends.RankingUtterance`."""
        best = np.empty((self.rows, count), np.int64)
        logprobs = np.empty((self.rows, count), np.float32)
        self._run(tokens, bias, count, {"ranked_tokens": best, "ranked_logprobs": logprobs})
        return best, logprobs

    def _run(self, tokens: NDArray[np.int64], bias: NDArray[np.float32], count: int, outputs: dict[str, Array]) -> None:
        check_tokens(self._engine.spec, tokens, self.rows, self.length)
        new = tokens.shape[1]
        embedded = self._engine.embedding.rows(tokens)
        self._block.reserve(self.length + new)
        if self._binding is None or (self._embedded.shape, self._asked) != (embedded.shape, {*outputs}):
            self._binding, self._asked = self._bind(*tokens.shape), {*outputs}
        self._embedded[:] = embedded
        self._past[0], self._count[0] = self.length, count
        _bind_input(self._binding, "bias", bias)
        for name, array in outputs.items():
            _bind_output(self._binding, name, array)
        self._engine.decoder.run_with_iobinding(self._binding)
        self.length += new

    def _bind(self, rows: int, new: int) -> onnxruntime.IOBinding:
        """A binding of all but the bias and what is asked for, as it lies now: good until a buffer moves, a shape
        changes, or something else is asked for (what was asked for before would be written too, where it lay)."""
        spec = self._engine.spec
        layers = spec.dimensions.n_text_layer
        self._embedded = np.empty((rows, new, spec.dimensions.n_text_state), np.float32)
        self._past, self._count = np.empty(1, np.int64), np.empty(1, np.int64)
        binding = self._engine.decoder.io_binding()
        _bind_input(binding, "embedded", self._embedded)
        _bind_input(binding, "past_length", self._past)
        _bind_input(binding, "count", self._count)
        for name, array in _cross(self._block, layers):  # each query is a product of its own with a matrix of bytes
            _bind_input(binding, name, array[:, :, None] if array.dtype == np.int8 else array)
        for name, array in zip(_names("past", layers), self._block.past, strict=True):
            _bind_input(binding, name, array)
            _bind_output(binding, name.replace("past", "present"), array)  # the same memory: updated in place
        return binding

    def select(self, rows: NDArray[np.int64]) -> None:
        """Row i continues from the past of former row rows[i].

        Rows of one window must come out adjacent, and equally many for each window that is left.

        Raises:
            UserError: more rows or windows than the engine was built for.
            ValueError: rows that do not exist, or not as said above.
        """
        rows = np.asarray(rows, np.int64)
        windows = windows_of(self._engine.spec, rows, self.rows, self._block.windows)
        if np.array_equal(rows, np.arange(self.rows)):
            return
        before = self.rows, self._block.windows
        self._block.select_rows(rows, self.length)
        self._block.select_windows(windows)
        if (self.rows, self._block.windows) != before:
            self._binding = None

    def rewind(self) -> None:
        """Forget every token, and give their pages back; rows and their windows stay as they are."""
        self.length = 0
        self._block.reserve(0)

    def room(self, new: int, beams: int) -> int:
        """How many windows, from the first on, can be decoded for `new` more tokens in `beams` rows each."""
        return self._block.room(self.length + new, beams)

    def split(self, windows: int) -> OnnxRuntimeUtterance:
        """Leave all but the first `windows` windows, 1 or more, to an utterance of its own."""
        self._binding = None
        return OnnxRuntimeUtterance(self._engine, self._block.split(windows, self.length), self.length)

    def close(self) -> None:
        """Give the memory back: to the system in paged mode, to the next utterance in contiguous mode."""
        self._binding = None
        self._block.close()
