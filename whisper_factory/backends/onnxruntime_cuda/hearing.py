"""From audio to the encoder: what windows of it are made of, a few at a time, each into its place in the cache.

While the device works, threads of the host lay the audio of the next windows ready in pinned memory, which the device
reads by itself: copying it there takes as long as a step of the decoder for each window of 30 s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.onnxruntime_cuda import logmel
from whisper_factory.backends.onnxruntime_cuda.files import ENCODER, LOG_MEL
from whisper_factory.backends.onnxruntime_cuda.limits import STEP_FRAMES, TOGETHER
from whisper_factory.backends.onnxruntime_cuda.stages import FLOAT, Bound, Executor
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

Cross = Callable[[int, int, int], dict[str, Tensor]]
HANDS = 4  # threads; more would not copy faster


class Hearing:
    """Log-mel and encoder of one engine: TOGETHER windows at once, which fill a GPU."""

    def __init__(self, spec: EngineSpec, device: Device, executor: Executor, cross: Cross) -> None:
        """
        Args:
            cross: the place of keys and values: of so many windows, of so many encoder positions each, from which on.
        """
        self._spec, self._device, self._executor, self._cross = spec, device, executor, cross
        batch, samples, mels = spec.profile.max_batch_size, logmel.samples(spec.window_frames), spec.dimensions.n_mels
        self.audio = self._buffer((min(TOGETHER, batch), samples))
        self.mel = self._buffer((min(TOGETHER, batch), mels, spec.window_frames))
        self._laid = device.slot(batch * samples * FLOAT.itemsize).array.view(np.float32)
        self._hands = ThreadPoolExecutor(HANDS, "lay-audio")  # none is started before there is something to do
        self.bound: dict[tuple[Any, ...], Bound] = {}

    def _buffer(self, shape: tuple[int, ...]) -> Tensor:
        return Tensor(self._device.allocate(int(np.prod(shape)) * FLOAT.itemsize), shape, FLOAT)

    def rounded(self, frames: int) -> int:
        """How many frames windows are given that ask for so many."""
        return min(self._spec.window_frames, -(-frames // STEP_FRAMES) * STEP_FRAMES)

    def positions(self, frames: int) -> int:
        """Of the encoder, of a window of so many frames."""
        return frames // 2 + (self._spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)

    def encode(self, mel: NDArray[np.float32]) -> None:
        """Of log-mel [windows, n_mels, frames], into the first places."""
        for first in range(0, len(mel), TOGETHER):
            some = np.ascontiguousarray(mel[first : first + TOGETHER], np.float32)
            self._device.upload(self.mel.address, some)
            self._encoder(first, len(some), mel.shape[2]).run()

    def fill(self, audio: Sequence[NDArray[np.float32]], frames: int) -> None:
        """Of audio [samples] each, into the first places."""
        if len(audio) == 1:  # whoever waits for one window need not wait for a thread too
            logmel.fill(self._row(0, frames), audio[0])
        laid = self.lay(0, audio, frames) if len(audio) > 1 else [_done()]
        for first in range(0, len(audio), TOGETHER):
            self.hear(first, laid[first : first + TOGETHER], frames)

    def lay(self, first: int, audio: Sequence[NDArray[np.float32]], frames: int) -> list[Future[None]]:
        """Lay audio [samples] each ready for the places from `first` on, what comes first there first.

        A place may be laid anew once a token of the window that it had has come to the host.

        Returns:
            What `hear` waits for, of each place.
        """
        return [self._hands.submit(logmel.fill, self._row(place, frames), clip)
                for place, clip in enumerate(audio, first)]

    def _row(self, place: int, frames: int) -> NDArray[np.float32]:
        """Pinned memory of a place's audio; those of the places of a batch lie one behind the other."""
        samples = logmel.samples(frames)
        return self._laid[place * samples : (place + 1) * samples]

    def hear(self, first: int, laid: Sequence[Future[None]], frames: int) -> None:
        """What was laid ready for the places from `first` on, at most TOGETHER; the device reads it when it comes to
        it."""
        for one in laid:
            one.result()
        count, samples = len(laid), logmel.samples(frames)
        self._device.upload(self.audio.address, self._laid[first * samples : (first + count) * samples])
        self._log_mel(count, frames).run()
        self._encoder(first, count, frames).run()

    def _log_mel(self, count: int, frames: int) -> Bound:
        key = (LOG_MEL, count, frames)
        if key not in self.bound:
            audio = self.audio._replace(shape=(count, logmel.samples(frames)))
            self._bind(key, {"audio": audio}, {"mel": self._mel(count, frames)})
        return self.bound[key]

    def _encoder(self, first: int, count: int, frames: int) -> Bound:
        """Of the log-mel that lies in its buffer, into the places from `first` on."""
        key = (ENCODER, first, count, frames)
        if key not in self.bound:
            self._bind(key, {"mel": self._mel(count, frames)}, self._cross(count, self.positions(frames), first))
        return self.bound[key]

    def _mel(self, count: int, frames: int) -> Tensor:
        return self.mel._replace(shape=(count, self._spec.dimensions.n_mels, frames))

    def _bind(self, key: tuple[Any, ...], inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
        self.bound[key] = self._executor.bind(key[0], inputs, outputs, {}, repeats=True)
        self.bound[key].rehearse()


def _done() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done
