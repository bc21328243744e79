"""Rounded models that hear clips: random weights, so that what they say means nothing, but is the same every time."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.calibration.test_speech import ASSETS, tokenizer
from tests.tiny_model import tiny_weights
from whisper_factory.calibration.passing import Window
from whisper_factory.calibration.worker import as_stored
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.keeping import trial
from whisper_factory.keeping.trial import SpokenTrial
from whisper_factory.quantization import mixed
from whisper_factory.whisper.checkpoint import Checkpoint, write_checkpoint
from whisper_factory.whisper.tokenizer import Tokenizer

WEIGHTS = tiny_weights(seed=1, n_audio_ctx=60)
SIZES = WEIGHTS.dimensions
TENSORS = as_stored(WEIGHTS)
WORDS = tokenizer(SIZES)
PRECISION = Precision("int4_auto", 4, "float16", 32, max_wer_delta=1.0)
LAYERS = list(mixed.layers(SIZES))


@cache
def windows() -> tuple[Window, ...]:
    """Silence, and noise with a text that is short, as is then what is heard."""
    rng = np.random.default_rng(0)
    said = ["one two three four", "now and then", "all the same words again", "where is it"]
    texts = [np.asarray([*WORDS.prompt(None), *WORDS.encode(f" {text}"), WORDS.eot], np.int64) for text in said]
    mels = [rng.standard_normal((80, frames)).astype(np.float32) for frames in (80, 60, 80, 100)]
    alone = [Window(text, mel, (tokens, tokens)) for text, mel, tokens in zip(said, mels, texts, strict=True)]
    return Window("silence", np.full((80, 120), -1.5, np.float32), ()), *alone


@cache
def tried() -> SpokenTrial:
    return SpokenTrial(TENSORS, SIZES, PRECISION, windows(), WORDS)


def test_clips_and_words_are_counted() -> None:
    assert tried().clips == 4
    assert tried().words == 4 + 3 + 5 + 3


def test_a_model_has_a_checkpoints_integers(tmp_path: Path) -> None:
    kept = tuple(LAYERS[::3])
    write_checkpoint(tmp_path, "tiny", Precision("int4_g32", 4, "float16", 32, kept), WEIGHTS)
    stored = Checkpoint.open(tmp_path)
    for layer in LAYERS:
        ours = (tried().eight if layer in kept else tried().four)[f"{layer}.weight"]
        assert np.array_equal(ours, stored.tensor(f"{layer}.weight")), layer


def test_errors_are_those_of_the_model_that_is_asked_for() -> None:
    every = [tried().errors(kept) for kept in (None, [], LAYERS, None)]
    assert every[0] == every[3]
    assert every[0] != every[1], "4 bits say something else"
    exact = SpokenTrial({**TENSORS, **tried().eight}, SIZES, PRECISION, windows(), WORDS)
    assert exact.errors(None) == every[2]


def test_harm_is_nothing_where_rounding_changes_nothing_and_more_where_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = SpokenTrial({**TENSORS, **tried().four}, SIZES, PRECISION, windows(), WORDS)
    candidates = [("encoder.blocks.1.mlp.2",), ("decoder.blocks.0.cross_attn.value",), ("decoder.blocks.1.mlp.0",)]
    monkeypatch.setattr(harmless, "four", tried().four)
    assert harmless.harms(candidates) == [0, 0, 0]
    assert all(harm > 1e-4 for harm in tried().harms(candidates))


def test_harm_is_of_the_whole_model_with_that_layer_rounded() -> None:
    """By the long way: encoded and decoded from the beginning."""
    from whisper_factory.calibration import forward
    from whisper_factory.keeping import hearing

    candidate = ("encoder.blocks.1.attn.query", "encoder.blocks.1.attn.key", "encoder.blocks.1.attn.value")
    rounded = {**TENSORS, **{f"{layer}.weight": tried().four[f"{layer}.weight"] for layer in candidate}}

    def predictions(window: Window, tensors: dict[str, trial.Floats]) -> trial.Floats:
        states, silence = (forward.encode(mel, tensors, SIZES.n_audio_layer, SIZES.n_audio_head)
                           for mel in (window.mel, windows()[0].mel))
        cross = forward.cross_keys_values(np.concatenate([states, silence[-50:]]), tensors, SIZES.n_text_layer)
        tokens = window.texts[0][:-1]
        return hearing.log_softmax(hearing.logits([int(token) for token in tokens], cross, tensors, SIZES,
                                                  len(WORDS.prompt(None)) - 1))

    both = [[predictions(window, tensors) for window in windows()[1:5]] for tensors in (dict(TENSORS), rounded)]
    wanted = sum(hearing.divergence(*pair) for pair in zip(*both, strict=True)) / sum(map(len, both[0]))
    assert tried().harms([candidate]) == [pytest.approx(wanted, rel=1e-4)]


def test_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    some = mixed.candidates(SIZES)[::5]
    several = tried().harms(some), tried().errors(LAYERS[:3])
    monkeypatch.setattr("whisper_factory.threads.MOST", 1)
    assert (tried().harms(some), tried().errors(LAYERS[:3])) == several


def test_progress_is_told_of_each_clip() -> None:
    told: list[float] = []
    counted = SpokenTrial(TENSORS, SIZES, PRECISION, windows(), WORDS, told.append)
    counted.errors(LAYERS)
    assert sum(told) == 4
    counted.harms([(LAYERS[-1],)])
    assert sum(told) == 8


def test_clips_in_which_nothing_is_said_decide_nothing() -> None:
    silent = [window._replace(texts=tuple(text[[0, 1, -1]] for text in window.texts)) for window in windows()]
    with pytest.raises(UserError, match=r"nothing is said in the clips; give calibration\.clips speech"):
        SpokenTrial(TENSORS, SIZES, PRECISION, silent, WORDS)


def test_a_multilingual_models_prompt_is_no_part_of_what_is_said() -> None:
    multilingual = tiny_weights(seed=1, multilingual=True, n_audio_ctx=60)
    words = Tokenizer.load(ASSETS / "multilingual.tiktoken", multilingual.dimensions)
    text = np.asarray([*words.prompt("de"), *words.encode(" guten Morgen"), words.eot], np.int64)
    silence, mel = (np.full((80, frames), -1.5, np.float32) for frames in (120, 80))
    made = SpokenTrial(as_stored(multilingual), multilingual.dimensions, PRECISION,
                       [Window("silence", silence, ()), Window("a", mel, (text, text))], words)
    assert made.said == [["guten", "morgen"]]
    assert made.spoken[0].prompt == words.prompt("de")


def test_what_calibration_adds_to_the_clips_decides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its windows are the clips', in their order, then clips that are joined or cut, with texts nobody says in them."""
    from whisper_factory.calibration.clips import bundled
    from whisper_factory.keeping import worker
    from whisper_factory.whisper import readers

    clips = bundled()[:8]
    given: list[Window] = []

    class Stopped(Exception):
        pass

    def stop(tensors: object, sizes: object, precision: object, windows: list[Window], *others: object) -> None:
        given.extend(windows)
        raise Stopped

    monkeypatch.setattr(worker, "SpokenTrial", stop)
    monkeypatch.setattr(readers, "read", lambda path, kind: WEIGHTS)
    asked = {"weights": "", "kind": "", "model": "tiny", "dimensions": asdict(SIZES),
             "precision": PRECISION.to_dict(), "vocabulary": str(ASSETS / "gpt2.tiktoken"),
             "speech": [{"path": str(one.path), "name": one.name, "text": one.text, "language": None} for one in clips]}
    with pytest.raises(Stopped):
        worker.run(asked)
    assert [window.name for window in given] == ["silence", *(one.name for one in clips)]
    for window, one in zip(given[1:], clips, strict=True):
        assert window.texts[0].tolist() == [*WORDS.prompt(None), *WORDS.encode(f" {one.text}"), WORDS.eot]
