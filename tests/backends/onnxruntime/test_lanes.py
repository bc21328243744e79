"""Two batches at once: the same answers, and nothing that hangs or is lost when one of them fails or nobody waits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import whisper
from numpy.typing import NDArray

from tests.backends.onnxruntime.making import build, make_checkpoint, respecified
from tests.backends.onnxruntime.test_session import PROMPT, prompts, windows
from tests.real_engine import clip, tiny_en
from tests.tiny_model import tiny_weights
from whisper_factory.backends import onnxruntime
from whisper_factory.backends.engines import Engine, Utterance
from whisper_factory.backends.onnxruntime.session import Lane, OnnxRuntimeEngine
from whisper_factory.stopwatch import Stopwatch
from whisper_factory.threads import Stopped
from whisper_factory.whisper import decoding, flow, transcribe
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.hearing import Hearing
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.tokenizer import Tokenizer
from whisper_factory.whisper.transcribe import Transcriber

Lookup = Callable[[str], Path]
ASSETS = Path(whisper.__file__).parent / "assets"
SPEECH = ("sample", "river", "garden", "window", "coffee")


def loaded(directory: Path) -> OnnxRuntimeEngine:
    engine = onnxruntime.load(directory, 2)
    assert isinstance(engine, OnnxRuntimeEngine)
    return engine


@pytest.fixture(scope="module")
def speech() -> list[NDArray[np.float32]]:
    return [read_audio(clip(name)) for name in SPEECH]


@pytest.fixture(scope="module")
def hearing() -> Transcriber:
    """Two windows in a batch, two beams: of five windows four are heard at once, and the fifth then."""
    return Transcriber.load(tiny_en(3000, "int8", max_batch_size=2, max_beam_width=2, max_new_tokens=60), 2)


@pytest.fixture(scope="module")
def wanted(hearing: Transcriber, speech: list[NDArray[np.float32]]) -> list[list[int]]:
    """What is heard, before anything has gone wrong."""
    return [one.tokens for one in hearing.transcribe(speech)]


@pytest.mark.parametrize("mode", ["contiguous", "paged"])
def test_lanes_give_the_logits_that_the_engine_gives(engines: Lookup, tmp_path: Path, mode: str) -> None:
    engine = loaded(respecified(engines("int8"), tmp_path / mode, mode=mode, page=5))
    mels = [windows(3, 200, seed) for seed in range(2)]

    def logits(lane: Lane, mel: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        utterance = lane.encode(mel)
        found = [utterance.decode(prompts(len(mel)))]
        found += [utterance.decode(np.full((len(mel), 1), token)) for token in PROMPT]
        utterance.close()
        return found

    wanted = [logits(engine, mel) for mel in mels]
    lanes, found = engine.lanes(threading.Event()), {}
    at_once = [threading.Thread(target=lambda place=place: found.update({place: logits(lanes[place], mels[place])}))
               for place in range(2)]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    for place in range(2):
        for one, other in zip(found[place], wanted[place], strict=True):
            assert np.array_equal(one, other)
    assert engine.opened.threads == 1
    assert np.array_equal(logits(engine, mels[0])[0], wanted[0][0])
    assert engine.opened.threads == 2  # one window or batch has all of them


def test_one_thread_has_one_lane_and_where_nothing_is_gained_there_are_none(engines: Lookup, tmp_path: Path) -> None:
    stopped, whole = threading.Event(), respecified(engines("int8"), tmp_path / "whole")
    assert len(loaded(whole).lanes(stopped)) == 2
    one_thread = onnxruntime.load(whole, 1)
    assert isinstance(one_thread, OnnxRuntimeEngine)
    assert len(one_thread.lanes(stopped)) == 1
    assert not loaded(respecified(engines("int8"), tmp_path / "pool", mode="paged", page=5, pages=40)).lanes(stopped)
    assert not loaded(respecified(engines("float32"), tmp_path / "float32")).lanes(stopped)
    assert one_thread.opened.threads == 1


def test_a_lane_stops_between_windows_and_between_steps(engines: Lookup, tmp_path: Path) -> None:
    engine, stopped = loaded(respecified(engines("int8"), tmp_path / "paged", mode="paged", page=5)), threading.Event()
    lanes = engine.lanes(stopped)
    utterance = lanes[0].encode(windows(2, 200))
    utterance.decode(prompts(2))
    stopped.set()
    with pytest.raises(Stopped):
        utterance.decode(np.full((2, 1), 11))
    with pytest.raises(Stopped):
        lanes[1].encode(windows(2, 200))
    utterance.close()
    assert [lane.memory.pages_in_use for lane in lanes] == [0, 0]


@pytest.mark.parametrize("beams", [1, 2])
def test_the_same_is_heard_as_one_batch_after_the_other(
    hearing: Transcriber, speech: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    options, used = Options(num_beams=beams), set()
    fill = Lane.fill
    monkeypatch.setattr(Lane, "fill", lambda self, *given: (used.add(threading.get_ident()), fill(self, *given))[1])
    found = hearing.transcribe(speech, options)
    assert len(used) == 2
    assert threading.get_ident() not in used
    monkeypatch.setattr(OnnxRuntimeEngine, "lanes", lambda self, stopped: [])
    wanted = hearing.transcribe(speech, options)
    assert used.pop() != used.pop()
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    assert all(len(one.tokens) > 3 for one in found)


def test_languages_are_detected_as_one_batch_after_the_other(
    tmp_path: Path, speech: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each clip in its first window; long ones have others, which wait for it."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", tiny_weights(multilingual=True), "int8")
    engine = loaded(build(checkpoint, tmp_path / "engine", max_batch_size=2, max_beam_width=1, max_new_tokens=6))
    hearing = Transcriber(engine, Tokenizer.load(ASSETS / "multilingual.tiktoken", engine.spec.dimensions))
    clips = [*speech, np.concatenate([*speech, *speech, *speech])]
    found, unlike = (hearing.transcribe(clips, Options(padding_strategy=how)) for how in ("max", "nopad"))
    monkeypatch.setattr(OnnxRuntimeEngine, "lanes", lambda self, stopped: [])
    wanted = hearing.transcribe(clips, Options())
    alone = [hearing.transcribe([audio], Options(padding_strategy="nopad", batch_size=1))[0] for audio in clips]
    assert len(found[-1].windows) > 1
    assert [(one.language, one.tokens) for one in found] == [(one.language, one.tokens) for one in wanted]
    assert [(one.language, one.tokens) for one in unlike] == [(one.language, one.tokens) for one in alone]


@pytest.mark.parametrize("beams", [1, 2])
def test_windows_of_unlike_lengths_are_heard_as_alone(
    hearing: Transcriber, speech: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    """Two windows of 30 s among them, which end last, and one that has more positions (18.24 s)."""
    whole = np.concatenate(speech * 2)
    clips = [*speech, *(whole[:int(seconds * 16_000)] for seconds in (9, 18.24, 28, 12.5, 29, 7.1))]
    options, frames = Options(num_beams=beams, padding_strategy="nopad"), list[int]()
    fill = Lane.fill
    monkeypatch.setattr(Lane, "fill", lambda self, caches, mel, *given: (
        frames.append(mel.shape[-1]), fill(self, caches, mel, *given))[1])
    found = hearing.transcribe(clips, options)
    among, frames = sorted(frames), []
    wanted = [hearing.transcribe([audio], options)[0] for audio in clips]
    assert sorted(frames) == among == [750] * 5 + [810, 1150, 1850, 2998, 3000, 3000]
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    for one, alone in zip(found, wanted, strict=True):
        assert one.windows[0].decoded.avg_logprob == pytest.approx(alone.windows[0].decoded.avg_logprob, abs=2e-3)


def test_what_goes_round_in_circles_is_heard_on_in_a_window_of_its_own_length(
    hearing: Transcriber, speech: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every window does here that is longer than the others."""
    begun, alone, frames = decoding.begun, Hearing._alone, list[int]()

    def circling(found: Callable[[decoding.Decoded], None], *given: Any) -> flow.Begun:
        return begun(lambda one: found(replace(one, dropped=[one.tokens[0]])), *given)

    def heard(self: Hearing, engine: Engine, job: Any, seen: int) -> Utterance:
        utterance = alone(self, engine, job, seen)
        frames.append(seen)
        return utterance

    monkeypatch.setattr(decoding, "begun", circling)
    monkeypatch.setattr(Hearing, "_alone", heard)
    found = hearing.transcribe([*speech, np.concatenate(speech[:3])], Options(padding_strategy="nopad"))
    assert all(one.windows[0].decoded.circles for one in found)
    assert set(frames) == {750, 1808}


def test_of_one_batch_all_threads_are_used(hearing: Transcriber, speech: list[NDArray[np.float32]],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntimeEngine, "lanes", lambda self, stopped: pytest.fail("lanes"))
    hearing.transcribe(speech[:2])
    assert isinstance(hearing.engine, OnnxRuntimeEngine)
    assert hearing.engine.opened.threads == 2


def heard_again(hearing: Transcriber, speech: list[NDArray[np.float32]]) -> list[list[int]]:
    """That the engine is as good as before, and no thread is left."""
    before = threading.active_count()
    found = hearing.transcribe(speech)
    assert threading.active_count() == before
    return [one.tokens for one in found]


def test_a_failure_in_one_lane_ends_the_request(hearing: Transcriber, speech: list[NDArray[np.float32]],
                                                wanted: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    fill, calls = Lane.fill, []

    def failing(self: Lane, *given: Any) -> None:
        calls.append(given)
        if len(calls) == 3:
            raise ValueError("the third window")
        fill(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "fill", failing)
        with pytest.raises(ValueError, match="the third window"):
            hearing.transcribe(speech)
    assert heard_again(hearing, speech) == wanted


def test_an_interruption_ends_both_lanes_soon(hearing: Transcriber, speech: list[NDArray[np.float32]],
                                              wanted: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the third batch is being begun, which goes no further; the other lane does what it is at."""
    go_on, fill, filled = Lane.go_on, Lane.fill, []

    def interrupted(self: Lane, *given: Any) -> None:
        filled.append(self)
        if len(filled) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            assert self._stopped is not None
            assert self._stopped.wait(60)
            with pytest.raises(Stopped):
                go_on(self)
        fill(self, *given)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Lane, "fill", interrupted)
            with pytest.raises(KeyboardInterrupt):
                hearing.transcribe(speech * 40)  # a hundred batches
        assert 3 <= len(filled) < 30
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard_again(hearing, speech) == wanted


def test_a_stopwatch_sees_what_lanes_do(hearing: Transcriber, speech: list[NDArray[np.float32]]) -> None:
    engine = loaded(tiny_en(3000, "int8", max_batch_size=2, max_beam_width=2, max_new_tokens=60) / "engine")
    stopwatch = Stopwatch(engine)
    found, lap = stopwatch.time(lambda: Transcriber(engine, hearing.tokenizer).transcribe(speech))
    assert lap.parts["encoder"].count == lap.parts["prompt"].count == len(speech)
    assert lap.parts["tokens"].count > 4
    assert lap.first_token is not None
    assert sum(work.seconds for work in lap.parts.values()) < lap.seconds
    assert sum(sum(vars(one.timings).values()) for one in found) < lap.seconds
    assert transcribe.Timings() != found[0].timings
