"""Running an engine: encode windows, then decode tokens against KV caches that are bound once, at their capacity.

The same code runs two ways: TensorRT's engines in a GPU's memory (executor.py), and the graphs that they were built
from on the CPU with ONNX Runtime (graph_engine.py), which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.tensorrt.files import STAGES
from whisper_factory.backends.tensorrt.kvcache import AppendedCaches
from whisper_factory.backends.tensorrt.limits import least_frames
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

ENCODER, DECODER = STAGES
MASKED = -10_000.0  # added to a score, it leaves nothing of it, and float16 has it


class Executor(Protocol):
    """What runs a stage."""

    def run(self, stage: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Run a stage over tensors that lie in the device's memory, in the device's order."""


class TensorRTEngine:
    """A loaded engine. One batch at a time: `encode` closes what is left of the one before."""

    def __init__(self, spec: EngineSpec, device: Device, executor: Executor, threads: int = 1) -> None:
        self.spec, self.threads = spec, threads
        self.device, self.executor = device, executor
        self.caches = AppendedCaches(spec, device)
        sizes, batch, rows = spec.dimensions, spec.profile.max_batch_size, spec.max_rows
        prompt = min(LONGEST_PROMPT, spec.max_tokens)
        float32, int64, own = np.dtype(np.float32), np.dtype(np.int64), np.dtype(spec.precision.dtype)
        self._mel = self._buffer((batch, sizes.n_mels, spec.window_frames), float32)
        self._tokens = self._buffer((rows, prompt), int64)
        self._positions = self._buffer((prompt,), int64)
        self._mask = self._buffer((prompt, self.caches.capacity + prompt), own)
        self._logits = self._buffer((rows, sizes.n_vocab), float32)
        self._open: TensorRTUtterance | None = None

    def _buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        return Tensor(self.device.allocate(int(np.prod(shape)) * dtype.itemsize), shape, dtype)

    def _given(self, buffer: Tensor, array: NDArray[Any]) -> Tensor:
        """An array as a tensor in a buffer."""
        array = np.ascontiguousarray(array, buffer.dtype)
        self.device.upload(buffer.address, array)
        return buffer._replace(shape=array.shape)

    def encode(self, mel: NDArray[np.float32]) -> TensorRTUtterance:
        """Run the encoder on log-mel windows [batch, n_mels, frames], and project the cross-attention KV.

        Returns:
            An utterance of one row a window.

        Raises:
            UserError: more, longer or shorter windows than the engine was built for, or another number of mels.
        """
        self._check_mel(mel)
        if self._open is not None:
            self._open.close()
        batch, _, frames = mel.shape
        length = frames // 2 + (self.spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)
        self.executor.run(ENCODER, {"mel": self._given(self._mel, mel)}, self.caches.cross(batch, length))
        self._open = TensorRTUtterance(self, batch, length)
        return self._open

    def _check_mel(self, mel: NDArray[np.float32]) -> None:
        spec = self.spec
        if mel.ndim != 3 or mel.shape[1] != spec.dimensions.n_mels:
            raise UserError(f"log-mel of shape {mel.shape} given, this engine ({spec.model}) takes "
                            f"[batch, {spec.dimensions.n_mels}, frames]")
        batch, _, frames = mel.shape
        if not 1 <= batch <= spec.profile.max_batch_size:
            raise UserError(f"{batch} windows at once, this engine was built for 1 to {spec.profile.max_batch_size}; "
                            f"build with profile.max_batch_size={batch}")
        if frames > spec.window_frames:
            wanted = min(WINDOW_FRAMES, frames)
            raise UserError(f"built for {spec.profile.max_input_len} frames (in windows of {spec.window_frames}), "
                            f"{frames} were given; padding_strategy=trim, or build with max_input_len={wanted}")
        if frames < least_frames(spec) or frames % 2:
            raise UserError(f"a window of {frames} frames, this engine was built for an even number from "
                            f"{least_frames(spec)} to {spec.window_frames} (profile.max_input_len); pad it")

    def step(self, tokens: NDArray[np.int64], windows: int, cross: int, past: int) -> NDArray[np.float32]:
        """Decode new tokens [rows, new] after `past` ones; the logits after the last of them, the caller's to keep."""
        rows, new = tokens.shape
        inputs = {
            "tokens": self._given(self._tokens, tokens),
            "positions": self._given(self._positions, np.arange(past, past + new)),
            "mask": self._given(self._mask, mask(self.caches.capacity, past, new)),
            **self.caches.cross(windows, cross), **self.caches.past(rows),
        }
        logits = self._logits._replace(shape=(rows, self.spec.dimensions.n_vocab))
        self.executor.run(DECODER, inputs, {"logits": logits, **self.caches.new(rows, new)})
        self.caches.append(rows, new, past)
        found = np.empty(logits.shape, np.float32)
        self.device.download(logits.address, found)
        return found


def mask(capacity: int, past: int, new: int) -> NDArray[np.float32]:
    """What is added to the scores of each new token: [new, capacity + new]; 0 for what it may see."""
    added = np.full((new, capacity + new), MASKED, np.float32)
    added[:, :past] = 0.0
    added[:, capacity:] = np.triu(added[:, capacity:], 1)
    return added


class TensorRTUtterance:
    """Encoded windows being decoded. See `backends.Utterance`."""

    def __init__(self, engine: TensorRTEngine, windows: int, cross: int) -> None:
        self.length = 0
        self._engine, self._windows, self._cross = engine, windows, cross  # encoder positions of each window
        self.rows = windows  # sequences being decoded; 0 once closed

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new]; the logits [rows, n_vocab] after the last of them, the caller's to keep.

        Raises:
            UserError: the sequences would be longer than the engine was built for.
            ValueError: another number of rows than there is, several tokens after the first step, no token, or closed.
        """
        self._check_tokens(tokens)
        logits = self._engine.step(tokens, self._windows, self._cross, self.length)
        self.length += tokens.shape[1]
        return logits

    def _check_tokens(self, tokens: NDArray[np.int64]) -> None:
        spec = self._engine.spec
        if not self.rows:
            raise ValueError("this utterance is closed (encoding the next one closes it)")
        if tokens.ndim != 2 or tokens.shape[0] != self.rows or tokens.shape[1] < 1:
            raise ValueError(f"tokens of shape {tokens.shape} given, [{self.rows}, 1 or more] needed")
        if tokens.min() < 0 or tokens.max() >= spec.dimensions.n_vocab:
            raise ValueError(f"tokens {tokens.ravel().tolist()}: a token is 0 to {spec.dimensions.n_vocab - 1}")
        new, limit = tokens.shape[1], spec.max_tokens
        if new > 1 and self.length:
            raise ValueError(f"{new} tokens at once after {self.length}: only a prompt may be longer than 1")
        if new > LONGEST_PROMPT:
            raise UserError(f"a prompt of {new} tokens, this engine was built for {LONGEST_PROMPT}")
        if self.length + new > limit:
            raise UserError(f"{self.length + new} tokens, this engine was built for {limit} (the prompt and "
                            f"profile.max_new_tokens={spec.profile.max_new_tokens}); build with more")

    def select(self, rows: NDArray[np.int64]) -> None:
        """Row i continues from the past of former row rows[i].

        Rows of one window must come out adjacent, and equally many for each window that is left.

        Raises:
            UserError: more rows than the engine was built for.
            ValueError: rows that do not exist, or not as said above.
        """
        rows = np.asarray(rows, np.int64)
        windows = self._check_rows(rows)
        self._engine.caches.select_rows(rows.tolist(), self.length)
        self._engine.caches.select_windows(windows, self._cross)
        self.rows, self._windows = len(rows), len(windows)

    def _check_rows(self, rows: NDArray[np.int64]) -> list[int]:
        """The windows that these rows are of, in their order."""
        if rows.ndim != 1 or not len(rows) or rows.min() < 0 or rows.max() >= self.rows:
            raise ValueError(f"rows {rows.tolist()} of an utterance with {self.rows} rows")
        limit = self._engine.spec.max_rows
        if len(rows) > limit:
            raise UserError(f"{len(rows)} sequences at once, this engine was built for {limit} "
                            f"(profile.max_batch_size times profile.max_beam_width); build with more")
        of_row = rows // (self.rows // self._windows)
        windows: list[int] = of_row[np.flatnonzero(np.diff(of_row, prepend=-1))].tolist()  # of each run of equal ones
        beams = len(rows) // len(windows)
        if len(set(windows)) < len(windows) or not np.array_equal(np.repeat(windows, beams), of_row):
            raise ValueError(f"rows {rows.tolist()} are of windows {of_row.tolist()}: those of a window must be "
                             f"adjacent, and as many as of any other")
        return windows

    def rewind(self) -> None:
        """Forget every token; rows and their windows stay as they are."""
        self.length = 0

    def room(self, new: int, beams: int) -> int:
        """All windows: there is memory for every row at its longest."""
        return self._windows

    def split(self, windows: int) -> TensorRTUtterance:
        """Never needed, as there is room for all."""
        raise ValueError("there is room for all windows of this engine: none has to wait")

    def close(self) -> None:
        """The memory is the next utterance's."""
        self.rows = 0
