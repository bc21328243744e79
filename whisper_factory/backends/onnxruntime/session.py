"""Running an engine: encode windows, then decode tokens against KV caches that are bound, not passed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnxruntime.files import DECODER, ENCODER
from whisper_factory.backends.onnxruntime.kvcache import KVMemory, Tensors
from whisper_factory.backends.onnxruntime.runtime import open_session
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[np.float32] | NDArray[np.int64]


def _bind_input(binding: onnxruntime.IOBinding, name: str, array: Array) -> None:
    """Bind memory, not its present content: the array must outlive the binding and stay where it is."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _bind_output(binding: onnxruntime.IOBinding, name: str, array: Array) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _names(kind: str, layers: int) -> list[str]:
    """Names of a KV cache's tensors in the graphs, in the order of `Tensors`."""
    return [f"{kind}_{part}_{layer}" for layer in range(layers) for part in "kv"]


class OnnxRuntimeEngine:
    """A loaded engine. One utterance at a time: `encode` closes the one before."""

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        self.spec = EngineSpec.load(directory)
        self.encoder = open_session(directory / f"{ENCODER}.onnx", threads)
        self.decoder = open_session(directory / f"{DECODER}.onnx", threads)
        self.memory = KVMemory(self.spec)
        self._current: OnnxRuntimeUtterance | None = None

    def encode(self, mel: NDArray[np.float32]) -> OnnxRuntimeUtterance:
        """Run the encoder on log-mel windows and project the cross-attention KV.

        Args:
            mel: float32 [batch, n_mels, frames]; frames even, at most spec.window_frames.

        Returns:
            An utterance of one row a window.

        Raises:
            UserError: more or longer windows than the engine was built for, or another number of mels.
        """
        self._check_mel(mel)
        if self._current is not None:
            self._current.close()
        batch, _, frames = mel.shape
        length = frames // 2 + (self.spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)
        cross = self.memory.cross_kv(batch, length)
        mel = np.ascontiguousarray(mel, np.float32)
        binding = self.encoder.io_binding()
        _bind_input(binding, "mel", mel)
        for name, array in zip(_names("cross", self.spec.dimensions.n_text_layer), cross, strict=True):
            _bind_output(binding, name, array)
        self.encoder.run_with_iobinding(binding)
        self._current = OnnxRuntimeUtterance(self, cross)
        return self._current

    def _check_mel(self, mel: NDArray[np.float32]) -> None:
        spec = self.spec
        if mel.ndim != 3 or mel.shape[1] != spec.dimensions.n_mels:
            raise UserError(f"log-mel of shape {mel.shape} given, this engine ({spec.model}) takes "
                            f"[batch, {spec.dimensions.n_mels}, frames]")
        batch, _, frames = mel.shape
        if not 1 <= batch <= spec.profile.max_batch_size:
            raise UserError(f"{batch} windows at once, this engine takes 1 to {spec.profile.max_batch_size} "
                            f"(profile.max_batch_size)")
        if not 2 <= frames <= spec.window_frames or frames % 2:
            raise UserError(f"a window of {frames} frames, this engine takes an even number from 2 to "
                            f"{spec.window_frames} (profile.max_input_len)")


class OnnxRuntimeUtterance:
    """Encoded windows being decoded. See `backends.Utterance`."""

    def __init__(self, engine: OnnxRuntimeEngine, cross: Tensors) -> None:
        self.length = 0
        self._engine = engine
        self._memory = engine.memory
        self._cross = cross
        self._windows = np.arange(len(cross[0]))  # the window of each row; those of one are adjacent
        self._self = self._memory.self_kv(len(cross[0]), 1)
        self._binding: onnxruntime.IOBinding | None = None
        self._closed = False

    @property
    def rows(self) -> int:
        """Sequences being decoded."""
        return len(self._windows)

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new]; the logits [rows, n_vocab] after the last of them, the caller's to keep.

        Raises:
            UserError: the sequences would be longer than the engine was built for.
            ValueError: another number of rows than there is, several tokens after the first step, or closed.
        """
        self._check_tokens(tokens)
        new = tokens.shape[1]
        grown = self._memory.grow(self._self, self.length, self.length + new)
        if grown is not self._self or self._binding is None or self._tokens.shape != tokens.shape:
            self._self = grown
            self._binding = self._bind(*tokens.shape)
        self._tokens[:] = tokens
        self._past[0] = self.length
        self._engine.decoder.run_with_iobinding(self._binding)
        self.length += new
        return self._logits.copy()

    def _check_tokens(self, tokens: NDArray[np.int64]) -> None:
        if self._closed:
            raise ValueError("this utterance is closed (encoding the next one closes it)")
        if tokens.ndim != 2 or tokens.shape[0] != self.rows or tokens.shape[1] < 1:
            raise ValueError(f"tokens of shape {tokens.shape} given, [{self.rows}, 1 or more] needed")
        if tokens.shape[1] > 1 and self.length:
            raise ValueError(f"{tokens.shape[1]} tokens at once after {self.length}: only a prompt may be longer "
                             f"than 1")
        limit = self._memory.max_tokens
        if self.length + tokens.shape[1] > limit:
            raise UserError(f"{self.length + tokens.shape[1]} tokens, this engine holds {limit} "
                            f"(profile.max_new_tokens and the prompt)")

    def _bind(self, rows: int, new: int) -> onnxruntime.IOBinding:
        """A binding of the buffers as they lie now: good until one of them moves or a shape changes."""
        spec = self._engine.spec
        layers = spec.dimensions.n_text_layer
        self._tokens = np.empty((rows, new), np.int64)
        self._past = np.empty(1, np.int64)
        self._logits = np.empty((rows, spec.dimensions.n_vocab), np.float32)
        binding = self._engine.decoder.io_binding()
        _bind_input(binding, "tokens", self._tokens)
        _bind_input(binding, "past_length", self._past)
        _bind_output(binding, "logits", self._logits)
        for name, array in zip(_names("cross", layers), self._cross, strict=True):
            _bind_input(binding, name, array)
        for name, array in zip(_names("past", layers), self._self, strict=True):
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
        if self._closed or rows.ndim != 1 or not len(rows) or rows.min() < 0 or rows.max() >= self.rows:
            raise ValueError(f"rows {rows.tolist()} of an utterance with {0 if self._closed else self.rows} rows")
        spec = self._engine.spec
        if len(rows) > spec.max_rows:
            raise UserError(f"{len(rows)} sequences at once, this engine holds {spec.max_rows} "
                            f"(profile.max_batch_size times max_beam_width)")
        if np.array_equal(rows, np.arange(self.rows)):
            return
        of_row = self._windows[rows]
        kept = of_row[np.flatnonzero(np.diff(of_row, prepend=-1))]  # each run's window
        beams, rest = divmod(len(rows), len(kept))
        if rest or len(np.unique(kept)) != len(kept) or not np.array_equal(np.repeat(kept, beams), of_row):
            raise ValueError(f"rows {rows.tolist()} are of windows {of_row.tolist()}: each window's must be "
                             f"adjacent, and equally many")
        if not np.array_equal(kept, np.arange(len(self._cross[0]))):
            self._cross = self._memory.select_cross(self._cross, kept)
        self._windows = np.repeat(np.arange(len(kept)), beams)
        self._self = self._memory.select_self(self._self, rows, self.length)
        self._binding = None

    def rewind(self) -> None:
        """Forget every token; rows and their windows stay as they are."""
        self.length = 0

    def close(self) -> None:
        """Give the memory back: to the system in paged mode, to the next utterance in contiguous mode."""
        self._closed = True
        self._binding = None
        self._cross, self._self = [], []
