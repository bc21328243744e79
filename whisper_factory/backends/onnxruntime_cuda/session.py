"""Running an engine: audio to log-mel, to encoder states, to tokens, all in the memory of one device.

Buffers and caches are taken when the engine loads, and stay where they are, so what a stage reads and writes is bound
once for every shape. A greedy search of a whole utterance runs ahead of the host by one token: the device writes the
token that it chose where it reads the next, and the host hears of it while the next is being decoded.

The same code runs two ways: on a GPU (runtime.py), and over the host's memory with the CPU provider, which is how it is
tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.cuda.kvcache import KVCaches
from whisper_factory.backends.cuda.utterance import ContiguousUtterance
from whisper_factory.backends.onnxruntime_cuda import logmel
from whisper_factory.backends.onnxruntime_cuda.files import DECODER, ENCODER, LOG_MEL
from whisper_factory.backends.onnxruntime_cuda.limits import STEP_FRAMES, TOGETHER
from whisper_factory.backends.requests import check_mel
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

FLOAT, INT32, INT64 = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64)


class Bound(Protocol):
    """A stage whose inputs and outputs are bound."""

    def run(self) -> None:
        """Set the device to work on it, after what it was asked before."""

    def rehearse(self) -> None:
        """Run it as often as it takes to be fast from then on: what its outputs hold after that is anything."""


class Executor(Protocol):
    """What runs stages."""

    def bind(self, stage: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor],
             given: Mapping[str, NDArray[Any]], repeats: bool = False) -> Bound:
        """Bind a stage to tensors in the device's memory.

        Args:
            given: inputs that the host holds, and keeps as they are.
            repeats: whether it runs often enough to be worth a rehearsal.
        """


class CudaEngine:
    """A loaded engine. One batch at a time: `encode` closes what is left of the one before."""

    def __init__(self, spec: EngineSpec, device: Device, executor: Executor, threads: int = 1) -> None:
        self.spec, self.threads = spec, threads
        self.device, self.executor = device, executor
        self.caches = KVCaches(spec, device)
        sizes, batch, rows = spec.dimensions, spec.profile.max_batch_size, spec.max_rows
        self.audio = self._buffer((batch, logmel.samples(spec.window_frames)), FLOAT)
        self.mel = self._buffer((batch, sizes.n_mels, spec.window_frames), FLOAT)
        self.prompt = self._buffer((rows, min(LONGEST_PROMPT, spec.max_tokens)), INT64)
        self.past, self.count = self._buffer((1,), INT32), self._buffer((1,), INT32)
        self.one = self._buffer((1,), INT32)
        self.forbidden = [self._buffer((sizes.n_vocab,), FLOAT) for _ in range(2)]  # of the first token, of later ones
        self.logits = self._buffer((rows, sizes.n_vocab), FLOAT)
        self.chosen = self._buffer((rows * (INT64.itemsize + FLOAT.itemsize),), np.dtype(np.uint8))
        self.slots = [device.slot(self.chosen.shape[0]) for _ in range(2)]
        self.staging = device.slot(int(np.prod(self.audio.shape)) * FLOAT.itemsize)
        device.upload(self.one.address, np.ones(1, np.int32))
        self._bound: dict[tuple[Any, ...], Bound] = {}
        self._rehearsed: set[tuple[int, int]] = set()
        self._open: CudaUtterance | None = None
        self._forbids: tuple[tuple[int, ...], ...] = ((), ())

    def warm_up(self) -> None:
        """Hear silence, as much as the engine takes: so the largest pieces of memory are taken first, which all that
        is smaller then fits into, and kernels are loaded before someone waits."""
        windows = [np.zeros(0, np.float32)] * self.spec.profile.max_batch_size
        utterance = self.listen(windows, self.spec.window_frames)
        prompt = np.zeros((len(windows), min(2, self.spec.max_tokens)), np.int64)
        utterance.decode(prompt)
        if self.spec.profile.max_beam_width > 1:
            utterance.select(np.repeat(np.arange(len(windows)), self.spec.profile.max_beam_width))
            utterance.decode(np.zeros((self.spec.max_rows, 1), np.int64))
        utterance.close()

    def _buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        return Tensor(self.device.allocate(int(np.prod(shape)) * dtype.itemsize), shape, dtype)

    def encode(self, mel: NDArray[np.float32]) -> CudaUtterance:
        """Run the encoder on log-mel windows [batch, n_mels, frames], and project the cross-attention KV.

        Returns:
            An utterance of one row a window.

        Raises:
            UserError: more or longer windows than the engine was built for, or another number of mels.
        """
        check_mel(self.spec, mel.shape)
        self.device.upload(self.mel.address, np.ascontiguousarray(mel, np.float32))
        return self._encode(mel.shape[0], mel.shape[2])

    def listen(self, audio: Sequence[NDArray[np.float32]], frames: int) -> CudaUtterance:
        """As `encode`, of audio [samples] at 16 kHz whose log-mel the device makes.

        Windows are at most STEP_FRAMES longer than asked, so that there are few lengths, each of which is rehearsed.

        Args:
            frames: of the log-mel windows, even; what a clip lacks is silence.
        """
        frames = min(self.spec.window_frames, -(-frames // STEP_FRAMES) * STEP_FRAMES)
        batch, samples = len(audio), logmel.samples(frames)
        check_mel(self.spec, (batch, self.spec.dimensions.n_mels, frames))
        # Pinned memory, which is read after this returns: it is filled again when these windows have been decoded.
        rows = self.staging.array.view(np.float32)[: batch * samples].reshape(batch, samples)
        for row, clip in zip(rows, audio, strict=True):
            logmel.fill(row, clip)
        self.device.upload(self.audio.address, rows)
        key = (LOG_MEL, batch, frames)
        if key not in self._bound:
            mel = self.mel._replace(shape=(batch, self.spec.dimensions.n_mels, frames))
            self._bound[key] = self.executor.bind(LOG_MEL, {"audio": self.audio._replace(shape=(batch, samples))},
                                                  {"mel": mel}, {}, repeats=True)
            self._bound[key].rehearse()
        self._bound[key].run()
        return self._encode(batch, frames)

    def _encode(self, batch: int, frames: int) -> CudaUtterance:
        """Of the log-mel that lies in its buffer: TOGETHER windows at once, which fill a GPU."""
        if self._open is not None:
            self._open.close()
        length = frames // 2 + (self.spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)
        for first in range(0, batch, TOGETHER):
            self._encoder(first, min(TOGETHER, batch - first), batch, frames, length).run()
        self._rehearse(batch, length)
        self._open = CudaUtterance(self, batch, length)
        return self._open

    def _encoder(self, first: int, count: int, batch: int, frames: int, length: int) -> Bound:
        """Of `count` windows of a batch, from the one numbered `first` on."""
        key = (ENCODER, first, count, batch, frames)
        if key not in self._bound:
            mels = self.spec.dimensions.n_mels
            mel = Tensor(self.mel.address + first * mels * frames * FLOAT.itemsize, (count, mels, frames), FLOAT)
            cross = {name: _part(tensor, first, count) for name, tensor in self.cross(batch, length).items()}
            self._bound[key] = self.executor.bind(ENCODER, {"mel": mel}, cross, {}, repeats=True)
            self._bound[key].rehearse()
        return self._bound[key]

    def cross(self, windows: int, length: int) -> dict[str, Tensor]:
        """Keys and values of cross-attention, [windows, length, state]."""
        shape = (windows, length, self.spec.dimensions.n_text_state)
        return {name: tensor._replace(shape=shape) for name, tensor in self.caches.cross(windows, length).items()}

    def _rehearse(self, batch: int, length: int) -> None:
        """The steps of this many rows, and of the numbers that are left when windows have ended."""
        rows = batch
        while rows:
            if (rows, length) not in self._rehearsed:
                self._rehearsed.add((rows, length))
                self.device.upload(self.past.address, np.zeros(1, np.int32))
                self.step(rows, rows, length).rehearse()
            rows = 1 << (rows - 1).bit_length() - 1 if rows > 1 else 0

    def step(self, rows: int, windows: int, length: int, new: int = 1) -> Bound:
        """The decoder over `new` tokens of each row: several for a prompt, which lies in its buffer; else the ones that
        were chosen last.

        Args:
            length: encoder positions.
        """
        key = (DECODER, rows, windows, length, new)
        if key not in self._bound:
            prompt = new > 1
            tokens = (self.prompt if prompt else self.chosen)._replace(shape=(rows, new), dtype=INT64)
            past = self.caches.past(rows)
            inputs = {"tokens": tokens, "past": self.past, "new": self.count if prompt else self.one,
                      "forbidden": self.forbidden[0 if prompt else 1], **self.cross(windows, length), **past}
            outputs = {"length": self.past, "logits": self.logits._replace(shape=(rows, self.spec.dimensions.n_vocab)),
                       "next": self.next(rows), "logprob": self.logprob(rows),
                       **{name.replace("past", "present"): tensor for name, tensor in past.items()}}
            reach = np.array([new if prompt else self.caches.capacity], np.int32)
            self._bound[key] = self.executor.bind(DECODER, inputs, outputs, {"reach": reach},
                                                  repeats=not prompt and rows == windows)
        return self._bound[key]

    def next(self, rows: int) -> Tensor:
        """Where the chosen tokens lie, [rows, 1]; their log-probabilities lie behind those of all rows there can be."""
        return Tensor(self.chosen.address, (rows, 1), INT64)

    def logprob(self, rows: int) -> Tensor:
        """Where their log-probabilities lie, [rows, 1]."""
        return Tensor(self.chosen.address + self.spec.max_rows * INT64.itemsize, (rows, 1), FLOAT)

    def forbid(self, first: Sequence[int], later: Sequence[int]) -> None:
        """Tokens that the device may not choose, as the first of an answer and after it."""
        for place, tokens in enumerate((first, later)):
            if self._forbids[place] != tuple(tokens):
                added = np.zeros(self.spec.dimensions.n_vocab, np.float32)
                added[list(tokens)] = -np.inf
                self.device.upload(self.forbidden[place].address, added)
        self._forbids = (tuple(first), tuple(later))


def _part(tensor: Tensor, first: int, count: int) -> Tensor:
    """Some of a tensor's first axis."""
    each = int(np.prod(tensor.shape[1:])) * tensor.dtype.itemsize
    return Tensor(tensor.address + first * each, (count, *tensor.shape[1:]), tensor.dtype)


class CudaUtterance(ContiguousUtterance):
    """Encoded windows being decoded. See `backends.Utterance`."""

    def __init__(self, engine: CudaEngine, windows: int, cross: int) -> None:
        super().__init__(engine.spec, engine.caches, windows, cross)
        self._engine = engine

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new]; the logits [rows, n_vocab] after the last of them, the caller's to keep.

        Raises:
            UserError, ValueError: as `_check`.
        """
        engine = self._engine
        self.feed(tokens)
        found = np.empty((self.rows, engine.spec.dimensions.n_vocab), np.float32)
        engine.device.download(engine.logits.address, found)
        return found

    def feed(self, tokens: NDArray[np.int64]) -> None:
        """Set the device to decode tokens [rows, new], and to choose the next."""
        engine, new = self._engine, tokens.shape[-1]
        self._check(tokens)
        place = engine.prompt if new > 1 else engine.chosen
        engine.device.upload(place.address, np.ascontiguousarray(tokens, np.int64))
        engine.device.upload(engine.past.address, np.array([self.length], np.int32))
        if new > 1:
            engine.device.upload(engine.count.address, np.array([new], np.int32))
        engine.step(self.rows, self._windows, self._cross, new).run()
        self.length += new

    def step(self) -> None:
        """Set the device to decode the tokens that it chose, and to choose the next."""
        self._engine.step(self.rows, self._windows, self._cross).run()
        self.length += 1

    def greedy(self, prompts: NDArray[np.int64], first: Sequence[int], later: Sequence[int], eot: int,
               limits: Sequence[int]) -> list[tuple[list[int], float]]:
        """See `backends.GreedyUtterance`."""
        from whisper_factory.backends.onnxruntime_cuda.greedy import search

        self._engine.forbid(first, later)
        return search(self, self._engine.slots, self._engine.chosen, prompts, eot, limits)
