"""From audio to text with a loaded engine: windows, batches, languages, decoding, and joining."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whisper_factory import backends
from whisper_factory.backends.engines import (
    Engine,
    GeneratingEngine,
    KeepingEngine,
    Lane,
    LanesEngine,
    ListeningEngine,
    Places,
    StreamingEngine,
    Utterance,
)
from whisper_factory.engine_spec import EngineSpec, PaddingStrategy
from whisper_factory.threads import shared
from whisper_factory.whisper import batching, circles, decoding, flow, generating, notices, windows
from whisper_factory.whisper.decoding import Decoded, decode, detect_languages
from whisper_factory.whisper.dimensions import SAMPLE_RATE
from whisper_factory.whisper.languages import resolve_language
from whisper_factory.whisper.logmel import log_mels
from whisper_factory.whisper.notices import Heard
from whisper_factory.whisper.options import Options, check, engine_directory, longest_answer
from whisper_factory.whisper.runaway import token_budget
from whisper_factory.whisper.search import Suppression
from whisper_factory.whisper.tokenizer import Tokenizer

VOCABULARY_FILE = "vocabulary.tiktoken"  # in every engine directory, whichever backend built it


@dataclass(frozen=True)
class Timings:
    """Seconds of work on one clip; its share where windows ran in a batch, and batches at once."""

    log_mel: float = 0.0  # 0 where the engine makes it: then it is the encoder's
    encoder: float = 0.0  # and the projection of the cross-attention KV; 0 where the runtime does both in one
    decoder: float = 0.0  # and the choice of tokens


@dataclass(frozen=True)
class Transcript:
    """What was heard in one clip."""

    text: str
    tokens: list[int]  # of all windows, one after the other
    language: str | None  # code, given or detected; None: the model knows English only
    windows: list[Heard]
    warnings: list[str]  # what was cut off, and where the decoder had to be stopped
    seconds: float  # length of the audio as given
    timings: Timings

    @property
    def seams(self) -> list[float]:
        """Where the audio was cut, in seconds: where windows meet, in pauses (see `windows.seams`)."""
        return [heard.start for heard in self.windows[1:]]


@dataclass
class _Job:
    """A window on its way through the engine."""

    clip: int
    window: windows.Window
    audio: NDArray[np.float32]
    frames: int  # that the encoder is to see
    language: str | None = None
    decoded: Decoded | None = None
    guessed: bool = False  # no language was detected, English is assumed
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # as Timings


_Task = tuple[Tokenizer, list[list[int]], list[str | None], int, list[int], int]


class Transcriber:
    """A loaded engine with its vocabulary."""

    def __init__(self, engine: Engine | GeneratingEngine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self.spec = engine.spec

    @classmethod
    def load(cls, directory: Path, threads: int | None = None) -> Transcriber:
        """Load an engine directory, or the engine of a composition's directory.

        Args:
            threads: None: as the backend sees fit.

        Raises:
            UserError: not an engine, or a file of it is missing or damaged.
            EnvironmentFault: its backend is not installed.
        """
        place = engine_directory(directory)
        spec = EngineSpec.load(place)
        engine = backends.load(place, threads)  # first, as loading it takes more memory than it has at the end
        tokenizer = Tokenizer.load(place / VOCABULARY_FILE, spec.dimensions)
        _ = tokenizer.suppressed_tokens, tokenizer.blank_tokens  # looked up now, not while someone waits
        tokenizer.ranks.let_go()
        return cls(engine, tokenizer)

    def transcribe(
        self, clips: Sequence[NDArray[np.float32]], options: Options | None = None
    ) -> list[Transcript]:
        """Transcribe clips of any length.

        Windows run together, up to `options.batch_size` in a batch; of more, some engines hear twice as many at once,
        and begin the next as soon as one has ended: each as long as it would be alone.
        So there, and under padding_strategy `max`, a clip's result does not depend on the others. Else windows of a
        batch are as long as its longest needs, which neighbours in length share, so a clip may be heard in a longer
        window than it would be alone.

        Args:
            clips: mono audio at 16 kHz, [samples] each.

        Raises:
            UserError: the options ask for what the engine or the model does not do.
        """
        options = options or Options()
        check(options, self.spec)
        strategy = options.padding_strategy or self.spec.profile.padding_strategy
        sizes = self.spec.dimensions
        named = options.language if sizes.is_multilingual else None
        language = resolve_language(named, sizes.num_languages) if named else None
        jobs = [self._jobs(index, audio, strategy, language) for index, audio in enumerate(clips)]
        first, later = [own[0] for own in jobs], [job for own in jobs for job in own[1:]]
        if not self._language_wanted(first):
            first, later = [*first, *later], []  # there is nothing to wait for
        size = options.batch_size or self.spec.profile.max_batch_size
        at_once = len(first) + len(later) > size
        with self.engine.keeping() if isinstance(self.engine, KeepingEngine) else nullcontext():
            self._run(first, size, at_once, options)  # the first window tells a clip's language
            for job in later:
                job.language = jobs[job.clip][0].language
            self._run(later, size, at_once, options)
        return [self._transcript(audio, own) for audio, own in zip(clips, jobs, strict=True)]

    def _jobs(
        self, clip: int, audio: NDArray[np.float32], strategy: PaddingStrategy, language: str | None
    ) -> list[_Job]:
        return [_Job(clip, window, audio[window.start:window.end],
                     self.spec.encoder_frames(window.frames, strategy), language)
                for window in windows.split(audio, strategy, self.spec)]

    def _run(self, jobs: list[_Job], size: int, at_once: bool, options: Options) -> None:
        """Hear windows, `size` at once; twice as many where the engine can."""
        engine = self.engine
        if not jobs:
            return
        if at_once and isinstance(engine, LanesEngine) and engine.lanes(threading.Event()):
            self._flow(engine, jobs, size, options)
            return
        batches = batching.batches(jobs, size, not self.spec.kv_cache.max_pages)
        for batch in batching.streams(batches) if self._streams(jobs, options) else batches:
            self._run_batch(engine, batch, size, options)

    def _flow(self, engine: LanesEngine, jobs: list[_Job], size: int, options: Options) -> None:
        """Hear windows in all lanes of an engine, the longest audio first: what ends last is then not begun last."""
        stopped, frames = threading.Event(), {job.frames for job in jobs}
        queue = deque(sorted(jobs, key=lambda job: len(job.audio), reverse=True))
        lanes = engine.lanes(stopped)
        each = min(size, -(-len(jobs) // len(lanes)))
        shared(lambda lane, queue: self._run_flow(lane, queue, each, frames, options, len(lanes)), lanes,
               len(lanes) * [queue], stopped)

    def _run_flow(self, lane: Lane, queue: deque[_Job], size: int, frames: set[int], options: Options, beside: int
                  ) -> None:
        """Of windows that others take from too: `size` at once, the next as soon as one has ended.

        Args:
            frames: that any of them has.
            beside: lanes that do so, this one included.
        """
        start, taken = time.perf_counter(), list[_Job]()

        def waiting() -> Iterator[flow.Waiting]:
            while queue:
                try:
                    job = queue.popleft()
                except IndexError:  # another was quicker
                    return
                taken.append(job)
                yield partial(self._begin, job, options)

        flow.run(lane.places(size, frames, options.num_beams), waiting(), Suppression(self.tokenizer))
        for job in taken:
            self._leave_circles(lane, [job], job.frames, options)
        decoding_s = time.perf_counter() - start - sum(float(job.seconds.sum()) for job in taken)
        for job in taken:
            job.seconds[2] = decoding_s / len(taken)
            job.seconds /= beside

    def _begin(self, job: _Job, options: Options, places: Places, place: int) -> flow.Begun:
        marks = [time.perf_counter()]
        (mel,) = self._log_mels([job], job.frames)
        marks.append(time.perf_counter())
        places.listen(place, mel)
        job.seconds[:2] = np.diff([*marks, time.perf_counter()])
        if self._language_wanted([job]):
            job.language = decoding.detect_language(places, place, self.tokenizer)
        tokenizer, (prompt,), _, limit, (budget,), beams = self._task([job], options)
        return decoding.begun(partial(setattr, job, "decoded"), tokenizer, prompt, job.language, limit, budget, beams)

    def _streams(self, jobs: list[_Job], options: Options) -> bool:
        """Whether more windows than a batch has can be given to the engine at once."""
        return (isinstance(self.engine, StreamingEngine) and options.num_beams == 1
                and not self.spec.kv_cache.max_pages and not self._language_wanted(jobs))

    def _run_batch(self, engine: Engine | GeneratingEngine, jobs: list[_Job], size: int, options: Options) -> None:
        """Of windows that are decoded together: `size` at once, if there are more."""
        frames = batching.frames_of(jobs)
        marks = [time.perf_counter()]
        if isinstance(engine, ListeningEngine):
            assert not isinstance(engine, GeneratingEngine)
            marks.append(marks[0])
            audio = [job.audio for job in jobs]
            utterance = (engine.stream(audio, frames, size)
                         if len(jobs) > size and isinstance(engine, StreamingEngine)
                         else engine.listen(audio, frames))
            self._decode(engine, utterance, jobs, options, marks)
            self._leave_circles(engine, jobs, frames, options)
        else:
            mel = self._log_mels(jobs, frames)
            marks.append(time.perf_counter())
            if isinstance(engine, GeneratingEngine):
                marks.append(time.perf_counter())
                self._generate(engine, mel, jobs, options)
            else:
                self._decode(engine, engine.encode(mel), jobs, options, marks)
                self._leave_circles(engine, jobs, frames, options)
        marks.append(time.perf_counter())
        for job in jobs:
            job.seconds = np.diff(marks) / len(jobs)

    def _decode(self, engine: Engine, utterance: Utterance, jobs: list[_Job], options: Options, marks: list[float]
                ) -> None:
        marks.append(time.perf_counter())
        try:
            if self._language_wanted(jobs):
                for job, language in zip(jobs, detect_languages(utterance, len(jobs), self.tokenizer), strict=True):
                    job.language = job.language or language
            found = decode(utterance, *self._task(jobs, options), engine.threads)
        finally:
            utterance.close()
        for job, decoded in zip(jobs, found, strict=True):
            job.decoded = decoded

    def _leave_circles(self, engine: Engine, jobs: list[_Job], frames: int, options: Options) -> None:
        """Hear on the windows that went round in circles, one by one: they are rare."""
        for job in jobs:
            if job.decoded and job.decoded.dropped:
                tokenizer, (prompt,), _, limit, (budget,), beams = self._task([job], options)
                job.decoded = circles.heard_on(partial(self._alone, engine, job, frames), tokenizer, prompt,
                                               job.decoded, limit, budget, beams, engine.threads)

    def _alone(self, engine: Engine, job: _Job, frames: int) -> Utterance:
        """A window, encoded by itself."""
        if isinstance(engine, ListeningEngine):
            return engine.listen([job.audio], frames)
        return engine.encode(self._log_mels([job], frames))

    def _log_mels(self, jobs: list[_Job], frames: int) -> NDArray[np.float32]:
        return log_mels([job.audio for job in jobs], self.spec.dimensions.n_mels, frames)

    def _generate(
        self, engine: GeneratingEngine, mel: NDArray[np.float32], jobs: list[_Job], options: Options
    ) -> None:
        if self._language_wanted(jobs):
            detected = generating.detect_languages(engine, mel, self.tokenizer)
            for job, language in zip(jobs, detected, strict=True):
                job.guessed = job.language is None and language is None
                job.language = job.language or language or generating.FALLBACK_LANGUAGE
        found = generating.decode(engine, mel, *self._task(jobs, options))
        for job, decoded in zip(jobs, found, strict=True):
            job.decoded = decoded

    def _language_wanted(self, jobs: list[_Job]) -> bool:
        return self.spec.dimensions.is_multilingual and any(job.language is None for job in jobs)

    def _task(self, jobs: list[_Job], options: Options) -> _Task:
        """What a batch is decoded with: tokenizer, prompts, languages, limit, budgets, beams."""
        prompts = [self.tokenizer.prompt(job.language, options.task) for job in jobs]
        budgets = [token_budget(job.window.seconds, job.language) for job in jobs]
        limit = longest_answer(options, self.spec, len(prompts[0]))
        return self.tokenizer, prompts, [job.language for job in jobs], limit, budgets, options.num_beams

    def _transcript(self, audio: NDArray[np.float32], jobs: list[_Job]) -> Transcript:
        heard = [Heard(job.window.start / SAMPLE_RATE, job.window.end / SAMPLE_RATE, job.decoded)
                 for job in jobs if job.decoded]
        seconds = len(audio) / SAMPLE_RATE
        return Transcript(
            text=windows.join([part.decoded.text for part in heard], jobs[0].language),
            tokens=[token for part in heard for token in part.decoded.tokens],
            language=jobs[0].language,
            windows=heard,
            warnings=[*notices.guessed(jobs[0].guessed), *notices.of_windows(heard, seconds)],
            seconds=seconds,
            timings=Timings(*np.sum([job.seconds for job in jobs], axis=0).tolist()),
        )
