"""Clips to windows: their lengths, what is joined, and what teaches where no text is given."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import whisper

from tests.real_weights import TINY_EN, packaged
from tests.tiny_model import tiny_weights
from whisper_factory import clips as validating
from whisper_factory.calibration import speech
from whisper_factory.calibration.clips import Speech
from whisper_factory.calibration.worker import as_stored
from whisper_factory.engine_spec import LEAST_FRAMES
from whisper_factory.whisper import readers
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tokenizer import Tokenizer

ASSETS = Path(whisper.__file__).parent / "assets"
TINY = tiny_weights(seed=1)
TENSORS = as_stored(TINY)


def recordings(count: int, with_text: bool = True) -> list[Speech]:
    return [Speech(clip.path, clip.name, clip.text if with_text else None, None)
            for clip in validating.bundled("full")[:count]]


def tokenizer(dimensions: Dimensions) -> Tokenizer:
    return Tokenizer.load(ASSETS / "gpt2.tiktoken", dimensions)


@cache
def tiny_en() -> tuple[dict[str, Any], Dimensions]:
    weights = readers.read(packaged(TINY_EN).parent, "ctranslate2")
    return as_stored(weights), weights.dimensions


def test_silence_then_each_clip_then_clips_that_are_joined() -> None:
    told: list[float] = []
    known, words = recordings(12), tokenizer(TINY.dimensions)
    found = speech.windows(known, TENSORS, TINY.dimensions, words, 0, told.append)
    assert found[0].texts == ()
    assert found[0].mel.shape == (80, 3000)
    assert (found[0].mel == -1.5).all()
    for window, one in zip(found[1:13], known, strict=True):
        assert window.name == one.name
        assert 750 <= window.mel.shape[1] < 1000
        assert window.mel.shape[1] % 2 == 0
        assert one.text is not None
        assert window.texts[0].tolist() == [*words.prompt(None), *words.encode(f" {one.text}"), words.eot]
    joined = [window for window in found if "+" in window.name]
    assert all(len(window.texts) == 1 for window in joined)
    assert all(window.mel.shape[1] == 3000 for window in joined)
    assert found[13 : 13 + len(joined)] == joined
    assert sorted("+".join(window.name for window in joined).split("+")) == sorted(one.name for one in known)
    assert sum(told) == 12


def test_the_seed_decides_what_is_joined() -> None:
    def joined(seed: int) -> list[str]:
        words = tokenizer(TINY.dimensions)
        found = speech.windows(recordings(9), TENSORS, TINY.dimensions, words, seed)
        return [window.name for window in found if "+" in window.name]

    assert joined(0) == joined(0) != joined(1)


def test_the_exact_model_teaches_where_there_is_no_text() -> None:
    tensors, sizes = tiny_en()
    words = tokenizer(sizes)
    found = speech.windows(recordings(2, with_text=False), tensors, sizes, words, 0)
    assert words.decode(found[1].texts[0]) == (
        " Good morning, the train to the coast leaves from platform 2 in a quarter of an hour.")
    assert found[1].texts[0][:2].tolist() == words.prompt(None)
    assert found[1].texts[0][-1] == words.eot


def test_a_multilingual_model_detects_the_language_it_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tiny_weights(seed=1, multilingual=True)
    words = Tokenizer.load(ASSETS / "multilingual.tiktoken", weights.dimensions)
    monkeypatch.setattr(speech._Teacher, "_language", lambda self, cross: "de")
    known = [recordings(1)[0], Speech(recordings(2)[1].path, "other", "Guten Tag.", "fr")]
    found = speech.windows(known, as_stored(weights), weights.dimensions, words, 0)
    assert found[1].texts[0][:4].tolist() == words.prompt("de")
    assert found[2].texts[0][:4].tolist() == words.prompt("fr")
    assert [window.name for window in found[3:]] == [
        "sample", "other", "sample, its beginning", "other, its beginning"]  # no window holds two languages


def test_of_a_long_recording_the_first_30_seconds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    long = np.random.default_rng(0).uniform(-0.1, 0.1, 40 * 16_000).astype(np.float32)
    monkeypatch.setattr(speech, "read_audio", lambda path: long)
    monkeypatch.setattr(speech, "FASTEST", 0.1)  # tokens a second: random weights do not end
    found = speech.windows(recordings(1), TENSORS, TINY.dimensions, tokenizer(TINY.dimensions), 0)
    assert found[1].mel.shape == (80, 3000)
    assert len(found[1].texts[0]) == 2 + 4 + 1


def test_a_decoder_is_also_fed_texts_that_are_wrong() -> None:
    words = tokenizer(TINY.dimensions)
    found = speech.windows(recordings(4), TENSORS, TINY.dimensions, words, 0)[1:5]
    prompt, end = len(words.prompt(None)), -1
    texts = [[text[prompt:end].tolist() for text in window.texts] for window in found]
    for place, (right, twice, others, circles, *endings) in enumerate(texts):
        assert twice == 2 * right
        assert others == texts[place - 1][0]
        length = next(length for length in (1, 2, 3, 4) if circles[-2 * length : -length] == circles[-length:])
        times = next(times for times in range(speech.CIRCLES, 1, -1)
                     if circles[-length:] * times == circles[-length * times :])
        assert circles[: -length * times] == right[: len(circles) - length * times]
        assert len(endings) == speech.ENDINGS
        for ending in endings:
            more = ending[len(right) :]
            assert ending[: len(right)] == right
            assert more in [right[-length:] * times for length in (1, 2, 3) for times in range(2, speech.CIRCLES + 1)]


def test_the_beginning_of_some_clips_is_heard_alone_with_as_much_of_the_text() -> None:
    known, words = recordings(4), tokenizer(TINY.dimensions)
    found = speech.windows(known, TENSORS, TINY.dimensions, words, 0)
    short = [window for window in found if window.name.endswith(", its beginning")]
    assert [window.name for window in short] == [f"{one.name}, its beginning" for one in known]
    for window, whole in zip(short, found[1:5], strict=True):
        assert window.mel.shape == (80, LEAST_FRAMES)
        assert len(window.texts) == len(whole.texts)
        taught = window.texts[0][:-1].tolist()
        assert len(words.prompt(None)) < len(taught) < len(whole.texts[0])
        assert taught == whole.texts[0][: len(taught)].tolist()


def test_no_beginnings_are_heard_where_enough_clips_are_as_short(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [*recordings(3), Speech(recordings(4)[3].path, "short", "Yes.", None)]
    monkeypatch.setattr(speech, "FEW", 3)
    for wanted, missing in ((1, 0), (2, 1), (4, 3)):
        monkeypatch.setattr(speech, "SHORT", wanted)
        found = speech.windows(known, TENSORS, TINY.dimensions, tokenizer(TINY.dimensions), 0)
        assert sum(window.name.endswith(", its beginning") for window in found) == missing
