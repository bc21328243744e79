"""Running an engine: audio to log-mel, to encoder states, to tokens, all in the memory of one device.

Buffers and caches have their addresses when the engine loads, and keep them, so what a stage reads and writes is bound
once for every shape; the memory of a paged cache comes and goes behind them.

The same code runs two ways: on a GPU (runtime.py), and over the host's memory with the CPU provider, which is how it is
tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.cuda.kvcache import KVCaches
from whisper_factory.backends.onnxruntime_cuda.files import DECODER
from whisper_factory.backends.onnxruntime_cuda.hearing import Hearing
from whisper_factory.backends.onnxruntime_cuda.stages import FLOAT, INT32, INT64, Bound, Executor, part
from whisper_factory.backends.onnxruntime_cuda.stream import CudaStream
from whisper_factory.backends.onnxruntime_cuda.utterance import CudaUtterance
from whisper_factory.backends.requests import check_mel
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec


class CudaEngine:
    """A loaded engine. One batch at a time: `encode` closes what is left of the one before."""

    def __init__(self, spec: EngineSpec, device: Device, executor: Executor, caches: KVCaches, threads: int = 1
                 ) -> None:
        """
        Args:
            caches: of `spec`, on `device`.
        """
        self.spec, self.threads = spec, threads
        self.device, self.executor, self.caches = device, executor, caches
        self.hearing = Hearing(spec, device, executor, self.cross)
        sizes, rows = spec.dimensions, spec.max_rows
        self.prompt = self._buffer((rows, min(LONGEST_PROMPT, spec.max_tokens)), INT64)
        self.past, self.count = self._buffer((rows,), INT32), self._buffer((1,), INT32)
        self.one = self._buffer((1,), INT32)
        self.forbidden = [self._buffer((sizes.n_vocab,), FLOAT) for _ in range(2)]  # of the first token, of later ones
        self.logits = self._buffer((rows, sizes.n_vocab), FLOAT)
        self.chosen = self._buffer((rows * (INT64.itemsize + FLOAT.itemsize),), np.dtype(np.uint8))
        self.slots = [device.slot(self.chosen.shape[0]) for _ in range(2)]
        device.upload(self.one.address, np.ones(1, np.int32))
        self._bound: dict[tuple[Any, ...], Bound] = {}
        self._rehearsed: set[tuple[int, int]] = set()
        self.open: list[CudaUtterance] = []  # those of the last batch, in the order of their windows
        self._forbids: tuple[tuple[int, ...], ...] = ((), ())

    def warm_up(self) -> None:
        """Hear silence, as much as the engine takes: so the largest pieces of memory are taken first, which all that
        is smaller then fits into, and kernels are loaded before someone waits."""
        windows, beams = [np.zeros(0, np.float32)] * self.spec.profile.max_batch_size, self.spec.profile.max_beam_width
        with self.caches.warming_up():
            utterance = self.listen(windows, self.spec.window_frames)
            most = utterance.room(2, beams)
            utterance.decode(np.zeros((len(windows), min(2, self.spec.max_tokens)), np.int64))
            if beams > 1:
                utterance.select(np.repeat(np.arange(most), beams))
                utterance.decode(np.zeros((most * beams, 1), np.int64))
            utterance.close()

    def keeping(self) -> AbstractContextManager[None]:
        """See `engines.KeepingEngine`."""
        return self.caches.keeping()

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
        batch, _, frames = mel.shape
        utterance = self._opened(CudaUtterance(self, batch, self.hearing.positions(frames)), frames)
        self.hearing.encode(mel)
        return utterance

    def listen(self, audio: Sequence[NDArray[np.float32]], frames: int) -> CudaUtterance:
        """As `encode`, of audio [samples] at 16 kHz whose log-mel the device makes.

        Windows are at most STEP_FRAMES longer than asked, so that there are few lengths, each of which is rehearsed.

        Args:
            frames: of the log-mel windows, even; what a clip lacks is silence.
        """
        frames, batch = self.hearing.rounded(frames), len(audio)
        check_mel(self.spec, (batch, self.spec.dimensions.n_mels, frames))
        utterance = self._opened(CudaUtterance(self, batch, self.hearing.positions(frames)), frames)
        self.hearing.fill(audio, frames)
        return utterance

    def stream(self, audio: Sequence[NDArray[np.float32]], frames: int, rows: int) -> CudaUtterance:
        """See `engines.StreamingEngine`."""
        frames = self.hearing.rounded(frames)
        check_mel(self.spec, (rows, self.spec.dimensions.n_mels, frames))
        utterance = self._opened(CudaStream(self, audio, rows, frames), frames)
        self.hearing.fill(audio[:rows], frames)
        return utterance

    def _opened(self, utterance: CudaUtterance, frames: int) -> CudaUtterance:
        """The only one from now on, its steps rehearsed."""
        for left in list(self.open):
            left.close()
        length = self.hearing.positions(frames)
        self.caches.hold(utterance.rows, utterance.rows, length)
        self.open.append(utterance)
        self._rehearse(utterance.rows, length)
        return utterance

    def cross(self, windows: int, length: int, first: int = 0) -> dict[str, Tensor]:
        """Keys and values of cross-attention, [windows, length, state], of the windows from `first` on."""
        shape = (windows, length, self.spec.dimensions.n_text_state)
        return {name: part(tensor._replace(shape=shape), first, windows)
                for name, tensor in self.caches.cross(windows, length).items()}

    def _rehearse(self, batch: int, length: int) -> None:
        """The steps of this many rows, and of the numbers that are left when windows have ended."""
        rows = batch
        while rows:
            if (rows, length) not in self._rehearsed:
                self._rehearsed.add((rows, length))
                self.device.upload(self.past.address, np.zeros(rows, np.int32))
                self.step(rows, rows, length).rehearse()
            rows = 1 << (rows - 1).bit_length() - 1 if rows > 1 else 0

    def step(self, rows: int, windows: int, length: int, new: int = 1, first: int = 0) -> Bound:
        """The decoder over `new` tokens of each row: several for a prompt, which lies in its buffer; else the ones that
        were chosen last.

        Args:
            length: encoder positions.
            first: of the rows, where each is of a window of its own.
        """
        key = (DECODER, rows, windows, length, new, first)
        if key not in self._bound:
            prompt = new > 1
            tokens = self.prompt._replace(shape=(rows, new)) if prompt else self.next(rows, first)
            past = {name: part(tensor, first, rows) for name, tensor in self.caches.past(rows).items()}
            inputs = {"tokens": tokens, "past": part(self.past, first, rows),
                      "new": self.count if prompt else self.one, "forbidden": self.forbidden[0 if prompt else 1],
                      **self.cross(windows, length, first), **past}
            outputs = {"length": inputs["past"], "logits": part(self.logits, first, rows),
                       "next": self.next(rows, first), "logprob": self.logprob(rows, first),
                       **{name.replace("past", "present"): tensor for name, tensor in past.items()}}
            reach = np.array([new if prompt else self.caches.capacity], np.int32)
            self._bound[key] = self.executor.bind(DECODER, inputs, outputs, {"reach": reach},
                                                  repeats=not prompt and rows == windows)
        return self._bound[key]

    def next(self, rows: int, first: int = 0) -> Tensor:
        """Where the chosen tokens lie, [rows, 1]; their log-probabilities lie behind those of all rows there can be."""
        return part(Tensor(self.chosen.address, (rows, 1), INT64), first, rows)

    def logprob(self, rows: int, first: int = 0) -> Tensor:
        """Where their log-probabilities lie, [rows, 1]."""
        behind = self.chosen.address + self.spec.max_rows * INT64.itemsize
        return part(Tensor(behind, (rows, 1), FLOAT), first, rows)

    def forbid(self, first: Sequence[int], later: Sequence[int]) -> None:
        """Tokens that the device may not choose, as the first of an answer and after it."""
        for place, tokens in enumerate((first, later)):
            if self._forbids[place] != tuple(tokens):
                added = np.zeros(self.spec.dimensions.n_vocab, np.float32)
                added[list(tokens)] = -np.inf
                self.device.upload(self.forbidden[place].address, added)
        self._forbids = (tuple(first), tuple(later))
