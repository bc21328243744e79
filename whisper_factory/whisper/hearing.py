"""Windows on their way through an engine: in batches, or each as a place is free; their languages and circles."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.engines import (
    Engine,
    GeneratingEngine,
    Lane,
    LanesEngine,
    ListeningEngine,
    Places,
    StreamingEngine,
    Utterance,
)
from whisper_factory.threads import shared
from whisper_factory.whisper import batching, circles, decoding, flow, generating, windows
from whisper_factory.whisper.decoding import Decoded, decode, detect_languages
from whisper_factory.whisper.logmel import log_mels
from whisper_factory.whisper.options import Options, longest_answer
from whisper_factory.whisper.runaway import token_budget
from whisper_factory.whisper.search import Suppression
from whisper_factory.whisper.tokenizer import Tokenizer

_Task = tuple[Tokenizer, list[list[int]], list[str | None], int, list[int], int]


@dataclass
class Job:
    """A window on its way through the engine."""

    clip: int
    window: windows.Window
    audio: NDArray[np.float32]
    frames: int  # that the encoder is to see
    language: str | None = None
    decoded: Decoded | None = None
    guessed: bool = False  # no language was detected, English is assumed
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # as transcribe.Timings


class Hearing:
    """An engine that hears windows as options ask for it."""

    def __init__(self, engine: Engine | GeneratingEngine, tokenizer: Tokenizer, options: Options) -> None:
        self.engine, self.tokenizer, self.options = engine, tokenizer, options
        self.spec = engine.spec
        self.size = options.batch_size or self.spec.profile.max_batch_size  # windows that are decoded together

    def run(self, jobs: list[Job], at_once: bool) -> None:
        """Hear windows, which then have what was decoded.

        Args:
            at_once: twice as many as are decoded together, where the engine can.
        """
        engine = self.engine
        if not jobs:
            return
        if at_once and isinstance(engine, LanesEngine) and engine.lanes(threading.Event()):
            self._flow(engine, jobs)
            return
        batches = batching.batches(jobs, self.size, not self.spec.kv_cache.max_pages)
        for batch in batching.streams(batches) if self._streams(jobs) else batches:
            self._run_batch(engine, batch)

    def language_wanted(self, jobs: list[Job]) -> bool:
        """Whether a language has to be detected."""
        return self.spec.dimensions.is_multilingual and any(job.language is None for job in jobs)

    def _flow(self, engine: LanesEngine, jobs: list[Job]) -> None:
        """Hear windows in all lanes of an engine, the longest audio first: what ends last is then not begun last."""
        stopped, frames = threading.Event(), {job.frames for job in jobs}
        queue = deque(sorted(jobs, key=lambda job: len(job.audio), reverse=True))
        lanes = engine.lanes(stopped)
        each = min(self.size, -(-len(jobs) // len(lanes)))
        shared(lambda lane, queue: self._run_flow(lane, queue, each, frames, len(lanes)), lanes, len(lanes) * [queue],
               stopped)

    def _run_flow(self, lane: Lane, queue: deque[Job], size: int, frames: set[int], beside: int) -> None:
        """Of windows that others take from too: `size` at once, the next as soon as one has ended.

        Args:
            frames: that any of them has.
            beside: lanes that do so, this one included.
        """
        start, taken = time.perf_counter(), list[Job]()

        def waiting() -> Iterator[flow.Waiting]:
            while queue:
                try:
                    job = queue.popleft()
                except IndexError:  # another was quicker
                    return
                taken.append(job)
                yield partial(self._begin, job)

        flow.run(lane.places(size, frames, self.options.num_beams), waiting(), Suppression(self.tokenizer))
        for job in taken:
            self._leave_circles(lane, [job], job.frames)
        decoding_s = time.perf_counter() - start - sum(float(job.seconds.sum()) for job in taken)
        for job in taken:
            job.seconds[2] = decoding_s / len(taken)
            job.seconds /= beside

    def _begin(self, job: Job, places: Places, place: int) -> flow.Begun:
        marks = [time.perf_counter()]
        (mel,) = self._log_mels([job], job.frames)
        marks.append(time.perf_counter())
        places.listen(place, mel)
        job.seconds[:2] = np.diff([*marks, time.perf_counter()])
        if self.language_wanted([job]):
            job.language = decoding.detect_language(places, place, self.tokenizer)
        tokenizer, (prompt,), _, limit, (budget,), beams = self._task([job])
        return decoding.begun(partial(setattr, job, "decoded"), tokenizer, prompt, job.language, limit, budget, beams)

    def _streams(self, jobs: list[Job]) -> bool:
        """Whether more windows than a batch has can be given to the engine at once."""
        return (isinstance(self.engine, StreamingEngine) and self.options.num_beams == 1
                and not self.spec.kv_cache.max_pages and not self.language_wanted(jobs))

    def _run_batch(self, engine: Engine | GeneratingEngine, jobs: list[Job]) -> None:
        """Of windows that are decoded together: `self.size` at once, if there are more."""
        frames = batching.frames_of(jobs)
        marks = [time.perf_counter()]
        if isinstance(engine, ListeningEngine):
            assert not isinstance(engine, GeneratingEngine)
            marks.append(marks[0])
            audio = [job.audio for job in jobs]
            utterance = (engine.stream(audio, frames, self.size)
                         if len(jobs) > self.size and isinstance(engine, StreamingEngine)
                         else engine.listen(audio, frames))
            self._decode(engine, utterance, jobs, marks)
            self._leave_circles(engine, jobs, frames)
        else:
            mel = self._log_mels(jobs, frames)
            marks.append(time.perf_counter())
            if isinstance(engine, GeneratingEngine):
                marks.append(time.perf_counter())
                self._generate(engine, mel, jobs)
            else:
                self._decode(engine, engine.encode(mel), jobs, marks)
                self._leave_circles(engine, jobs, frames)
        marks.append(time.perf_counter())
        for job in jobs:
            job.seconds = np.diff(marks) / len(jobs)

    def _decode(self, engine: Engine, utterance: Utterance, jobs: list[Job], marks: list[float]) -> None:
        marks.append(time.perf_counter())
        try:
            if self.language_wanted(jobs):
                for job, language in zip(jobs, detect_languages(utterance, len(jobs), self.tokenizer), strict=True):
                    job.language = job.language or language
            found = decode(utterance, *self._task(jobs), engine.threads)
        finally:
            utterance.close()
        for job, decoded in zip(jobs, found, strict=True):
            job.decoded = decoded

    def _leave_circles(self, engine: Engine, jobs: list[Job], frames: int) -> None:
        """Hear on the windows that went round in circles, one by one: they are rare."""
        for job in jobs:
            if job.decoded and job.decoded.dropped:
                tokenizer, (prompt,), _, limit, (budget,), beams = self._task([job])
                job.decoded = circles.heard_on(partial(self._alone, engine, job, frames), tokenizer, prompt,
                                               job.decoded, limit, budget, beams, engine.threads)

    def _alone(self, engine: Engine, job: Job, frames: int) -> Utterance:
        """A window, encoded by itself."""
        if isinstance(engine, ListeningEngine):
            return engine.listen([job.audio], frames)
        return engine.encode(self._log_mels([job], frames))

    def _log_mels(self, jobs: list[Job], frames: int) -> NDArray[np.float32]:
        return log_mels([job.audio for job in jobs], self.spec.dimensions.n_mels, frames)

    def _generate(self, engine: GeneratingEngine, mel: NDArray[np.float32], jobs: list[Job]) -> None:
        if self.language_wanted(jobs):
            detected = generating.detect_languages(engine, mel, self.tokenizer)
            for job, language in zip(jobs, detected, strict=True):
                job.guessed = job.language is None and language is None
                job.language = job.language or language or generating.FALLBACK_LANGUAGE
        found = generating.decode(engine, mel, *self._task(jobs))
        for job, decoded in zip(jobs, found, strict=True):
            job.decoded = decoded

    def _task(self, jobs: list[Job]) -> _Task:
        """What a batch is decoded with: tokenizer, prompts, languages, limit, budgets, beams."""
        prompts = [self.tokenizer.prompt(job.language, self.options.task) for job in jobs]
        budgets = [token_budget(job.window.seconds, job.language) for job in jobs]
        limit = longest_answer(self.options, self.spec, len(prompts[0]))
        return self.tokenizer, prompts, [job.language for job in jobs], limit, budgets, self.options.num_beams
