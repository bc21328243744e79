"""From audio to text with a loaded engine: clips cut into windows, which are heard (hearing.py), and joined."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whisper_factory import backends
from whisper_factory.backends.engines import Engine, GeneratingEngine, KeepingEngine
from whisper_factory.engine_spec import EngineSpec, PaddingStrategy
from whisper_factory.whisper import notices, windows
from whisper_factory.whisper.dimensions import SAMPLE_RATE
from whisper_factory.whisper.hearing import Hearing, Job
from whisper_factory.whisper.languages import resolve_language
from whisper_factory.whisper.notices import Heard
from whisper_factory.whisper.options import Options, check, engine_directory
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
        hearing = Hearing(self.engine, self.tokenizer, options)
        if not hearing.language_wanted(first):
            first, later = [*first, *later], []  # there is nothing to wait for
        at_once = len(first) + len(later) > hearing.size
        with self.engine.keeping() if isinstance(self.engine, KeepingEngine) else nullcontext():
            hearing.run(first, at_once)  # the first window tells a clip's language
            for job in later:
                job.language = jobs[job.clip][0].language
            hearing.run(later, at_once)
        return [self._transcript(audio, own) for audio, own in zip(clips, jobs, strict=True)]

    def _jobs(self, clip: int, audio: NDArray[np.float32], strategy: PaddingStrategy, language: str | None
              ) -> list[Job]:
        return [Job(clip, window, audio[window.start:window.end],
                     self.spec.encoder_frames(window.frames, strategy), language)
                for window in windows.split(audio, strategy, self.spec)]

    def _transcript(self, audio: NDArray[np.float32], jobs: list[Job]) -> Transcript:
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
