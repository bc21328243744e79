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
from whisper_factory.backends.cuda.utterance import ContiguousUtterance
from whisper_factory.backends.requests import check_mel
from whisper_factory.backends.tensorrt.files import STAGES
from whisper_factory.backends.tensorrt.kvcache import AppendedCaches
from whisper_factory.backends.tensorrt.limits import least_frames
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec
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
        check_mel(self.spec, mel.shape, least_frames(self.spec))
        if self._open is not None:
            self._open.close()
        batch, _, frames = mel.shape
        length = frames // 2 + (self.spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)
        self.executor.run(ENCODER, {"mel": self._given(self._mel, mel)}, self.caches.cross(batch, length))
        self._open = TensorRTUtterance(self, batch, length)
        return self._open

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


class TensorRTUtterance(ContiguousUtterance):
    """Encoded windows being decoded. See `engines.Utterance`."""

    def __init__(self, engine: TensorRTEngine, windows: int, cross: int) -> None:
        super().__init__(engine.spec, engine.caches, windows, cross)
        self._engine = engine

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new]; the logits [rows, n_vocab] after the last of them, the caller's to keep.

        Raises:
            UserError, ValueError: as `_check`.
        """
        self._check(tokens)
        logits = self._engine.step(tokens, self._windows, self._cross, self.length)
        self.length += tokens.shape[1]
        return logits
