"""Which windows go together, and that a stream of them is heard as batches are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.whisper.torch_engine import TorchEngine, TorchUtterance, engine, tokenizer_of
from whisper_factory.engine_spec import KVCache
from whisper_factory.whisper import batching
from whisper_factory.whisper.logmel import log_mel
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.transcribe import Transcriber

SHORT = Options(max_new_tokens=6)


@dataclass
class Job:
    """A window."""

    audio: NDArray[np.float32]
    frames: int


def jobs(*about: tuple[int, int]) -> list[Job]:
    """Of samples and frames each."""
    return [Job(np.zeros(samples, np.float32), frames) for samples, frames in about]


def told(made: Sequence[Sequence[Job]]) -> list[list[int]]:
    return [[len(job.audio) for job in batch] for batch in made]


def test_neighbours_in_length_share_a_batch() -> None:
    given = jobs((5, 20), (3, 10), (9, 20), (1, 10), (2, 20))
    assert told(list(batching.batches(given, 2, even=True))) == [[1, 3], [2, 5], [9]]
    assert told(list(batching.batches(given, 2, even=False))) == [[3, 1], [5, 9], [2]]


def test_batches_as_long_as_each_other_are_one_stream() -> None:
    given = jobs((1, 10), (2, 10), (3, 10), (4, 20), (5, 20), (6, 20))
    made = list(batching.streams(batching.batches(given, 2, even=True)))
    assert told(made) == [[2, 1], [6, 5, 4, 3]]  # the second batch of 10 has a window of 20
    assert [batching.frames_of(batch) for batch in made] == [10, 20]


class Streaming(TorchEngine):
    """Hears audio, and remembers what it was asked: windows and rows."""

    def __init__(self, made: TorchEngine) -> None:
        super().__init__(made.model, made.spec)
        self.asked: list[tuple[int, int]] = []

    def listen(self, audio: Sequence[NDArray[np.float32]], frames: int) -> TorchUtterance:
        self.asked.append((len(audio), len(audio)))
        return self.encode(np.stack([log_mel(clip, 80, frames) for clip in audio]))

    def stream(self, audio: Sequence[NDArray[np.float32]], frames: int, rows: int) -> TorchUtterance:
        parts = [self.listen([clip], frames).features for clip in audio]
        self.asked = [*self.asked[: -len(audio)], (len(audio), rows)]
        return TorchUtterance(self.model, torch.cat(parts))


@pytest.mark.parametrize(("options", "about", "asked"), [
    (SHORT, {}, [(7, 3)]),
    (replace(SHORT, batch_size=2), {}, [(7, 2)]),
    (replace(SHORT, num_beams=2), {}, [(3, 3), (3, 3), (1, 1)]),
    (SHORT, {"multilingual": True}, [(3, 3), (3, 3), (1, 1)]),  # their languages are to be detected
    (replace(SHORT, language="en"), {"multilingual": True}, [(7, 3)]),
    (replace(SHORT, padding_strategy="nopad"), {}, [(3, 3), (3, 3), (1, 1)]),  # batches of unlike lengths
])
def test_what_can_be_streamed_is(options: Options, about: dict[str, bool], asked: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(3)
    clips = [0.1 * rng.standard_normal(16_000 * seconds).astype(np.float32) for seconds in (9, 12, 4, 25, 15, 16, 17)]
    plain = engine(eot_bias=9.0, seed=2, max_batch_size=3, **about)
    streaming, tokenizer = Streaming(plain), tokenizer_of(plain.model.dims)
    wanted = Transcriber(plain, tokenizer).transcribe(clips, options)
    found = Transcriber(streaming, tokenizer).transcribe(clips, options)
    assert streaming.asked == asked
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    assert len({tuple(one.tokens) for one in found}) > 1


def test_a_pool_of_pages_is_shared_by_batches() -> None:
    plain = engine(max_batch_size=2)
    plain.spec = replace(plain.spec, kv_cache=KVCache("paged", 64, 9))
    streaming = Streaming(plain)
    Transcriber(streaming, tokenizer_of(plain.model.dims)).transcribe([np.zeros(16_000, np.float32)] * 3, SHORT)
    assert streaming.asked == [(2, 2), (1, 1)]


def test_a_stream_waits_for_no_first_window() -> None:
    """Where no language is to be detected: all windows of a long recording and of a short one."""
    rng = np.random.default_rng(4)
    clips = [0.1 * rng.standard_normal(16_000 * seconds).astype(np.float32) for seconds in (95, 3)]
    plain = engine(eot_bias=9.0, seed=2, max_batch_size=3)
    streaming, tokenizer = Streaming(plain), tokenizer_of(plain.model.dims)
    wanted = Transcriber(plain, tokenizer).transcribe(clips, SHORT)
    assert plain.batches[0] == (3, 3000)
    found = Transcriber(streaming, tokenizer).transcribe(clips, SHORT)
    assert streaming.asked == [(len(wanted[0].windows) + 1, 3)]
    assert [(one.tokens, one.seams) for one in found] == [(one.tokens, one.seams) for one in wanted]
