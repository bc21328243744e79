"""Decoding gives openai-whisper's own tokens: same model, same audio, greedy and by beam search."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import whisper
from whisper.model import Whisper

from tests.whisper.torch_engine import POSITIONS, TorchUtterance, random_model, tokenizer_of
from whisper_factory.whisper.decoding import Decoded, answer, decode, detect_languages
from whisper_factory.whisper.runaway import first_round

torch.set_num_threads(1)
STEPS = 20
FAR = 10_000  # a budget that does not act
MODELS = [(0, 0.0), (0, 9.0), (1, 9.0), (2, 9.0), (4, 9.0)]  # seed, bias towards the end


def features(seed: int, windows: int) -> torch.Tensor:
    """What an encoder might put out: [windows, positions, width]."""
    return 2 * torch.randn((windows, POSITIONS, 32), generator=torch.Generator().manual_seed(seed))


def theirs(model: Whisper, heard: torch.Tensor, **options: object) -> list[whisper.DecodingResult]:
    """openai-whisper's decoding."""
    if not model.is_multilingual:
        options["language"] = "en"  # it asks for it, and does not use it
    asked = whisper.DecodingOptions(without_timestamps=True, fp16=False, sample_len=STEPS, **options)  # type: ignore[arg-type]
    # One window at a time: version 20250625 fails when it searches beams in a batch.
    return [whisper.decode(model, window, asked) for window in heard]


def kept(wanted: list[whisper.DecodingResult]) -> list[list[int]]:
    """What stays of their tokens: of a circle that had no end, the first round."""
    return [result.tokens if len(result.tokens) < STEPS else result.tokens[: first_round(result.tokens)]
            for result in wanted]


def ours(model: Whisper, heard: torch.Tensor, beams: int = 1, language: str | None = None,
         steps: int = STEPS, budgets: list[int] | None = None) -> list[Decoded]:
    """Ours, on the same model."""
    tokenizer = tokenizer_of(model.dims)
    languages: list[str | None] = [language] * len(heard)
    utterance = TorchUtterance(model, heard)
    if model.is_multilingual and language is None:
        languages = list(detect_languages(utterance, len(heard), tokenizer))
    prompts = [tokenizer.prompt(language) for language in languages]
    return decode(utterance, tokenizer, prompts, languages, steps, budgets or [FAR] * len(heard), beams)


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize(("seed", "eot_bias"), MODELS)
def test_tokens_are_openais(seed: int, eot_bias: float, beams: int, windows: int) -> None:
    model = random_model(seed, eot_bias=eot_bias)
    heard = features(seed, windows)
    wanted = theirs(model, heard, beam_size=beams if beams > 1 else None)
    got = ours(model, heard, beams)
    assert [result.tokens for result in got] == [result.tokens for result in wanted]
    for mine, reference in zip(got, wanted, strict=True):
        assert mine.avg_logprob == pytest.approx(reference.avg_logprob, rel=1e-4)
        assert mine.language is None


@pytest.mark.parametrize("beams", [1, 4])
def test_tokens_are_the_same_whoever_chooses_them(beams: int) -> None:
    model, tokenizer = random_model(2, eot_bias=9.0), tokenizer_of(random_model(2).dims)
    found = []
    for threads in (1, 3):
        utterance = TorchUtterance(model, features(2, 8))
        found.append(decode(utterance, tokenizer, [tokenizer.prompt()] * 8, [None] * 8, STEPS, [FAR] * 8, beams,
                            threads))
    assert found[0] == found[1]
    assert len({tuple(result.tokens) for result in found[0]}) > 4


def test_the_models_above_end_early_and_late() -> None:
    """Else the comparison would be of one kind only."""
    lengths = [len(result.tokens)
               for seed, bias in MODELS
               for result in ours(random_model(seed, eot_bias=bias), features(seed, 3))]
    assert STEPS in lengths
    assert len({length for length in lengths if length < STEPS}) >= 4


@pytest.mark.parametrize("beams", [1, 4])
def test_languages_are_detected_as_openai_does(beams: int) -> None:
    for seed in range(3):
        model = random_model(seed, multilingual=True, eot_bias=9.0)
        heard = features(seed, 3)
        wanted = theirs(model, heard, beam_size=beams if beams > 1 else None)
        got = ours(model, heard, beams)
        assert [result.language for result in got] == [result.language for result in wanted]
        assert [result.tokens for result in got] == kept(wanted)


def test_a_given_language_is_used() -> None:
    model = random_model(5, multilingual=True)
    heard = features(5, 2)
    assert [result.tokens for result in ours(model, heard, language="de")] == \
           [result.tokens for result in theirs(model, heard, language="de")]
    assert ours(model, heard, language="de")[0].tokens != ours(model, heard, language="fr")[0].tokens


@pytest.mark.parametrize("beams", [1, 4])
def test_a_batch_gives_what_each_window_gives_alone(beams: int) -> None:
    model = random_model(2, eot_bias=10.0)
    heard = features(2, 8)
    together = ours(model, heard, beams, steps=40)
    assert len({len(result.tokens) for result in together}) > 2  # windows drop out at different times
    for window, result in enumerate(together):
        alone, = ours(model, heard[window : window + 1], beams, steps=40)
        assert alone.tokens == result.tokens


def test_windows_that_are_over_are_dropped() -> None:
    model = random_model(2, eot_bias=10.0)
    tokenizer = tokenizer_of(model.dims)
    utterance = TorchUtterance(model, features(2, 8))
    decode(utterance, tokenizer, [tokenizer.prompt()] * 8, [None] * 8, 40, [FAR] * 8)
    rows = utterance.rows_decoded
    assert rows[0] == 8
    assert rows[-1] <= 4
    assert sorted(rows, reverse=True) == rows


@pytest.mark.parametrize("beams", [1, 4])
def test_why_it_stopped(beams: int) -> None:
    model = random_model(0)  # never ends by itself
    short, long = ours(model, features(0, 2), beams, steps=12, budgets=[5, FAR])
    assert (len(short.tokens), short.stopped, short.runaway) == (5, "budget", True)
    assert (len(long.tokens), long.stopped, long.runaway) == (12, "length", False)
    ending = random_model(2, eot_bias=12.0)
    result, = ours(ending, features(2, 1), beams)
    assert (result.stopped, result.runaway) == ("eot", False)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_loop_is_reported(beams: int) -> None:
    class Parrot(TorchUtterance):
        def decode(self, tokens: np.ndarray) -> np.ndarray:
            logits = super().decode(tokens)
            logits[:, tokenizer.ranks.rank(b" again")] += 1000.0
            return logits

    model = random_model(0)
    tokenizer = tokenizer_of(model.dims)
    result, = decode(Parrot(model, features(0, 1)), tokenizer, [tokenizer.prompt()], [None], 40, [FAR], beams)
    assert (result.text, len(result.dropped)) == ("again", 39)
    assert (result.stopped, result.runaway) == ("length", True)


def test_who_ends_by_himself_is_left_his_words() -> None:
    tokenizer = tokenizer_of(random_model(0).dims)
    again = [tokenizer.ranks.rank(b" again")] * 40
    ended, stopped = (answer(again, how, tokenizer, None, None) for how in ("eot", "budget"))
    assert (ended.text, len(ended.dropped), ended.runaway) == (" ".join(["again"] * 40), 0, True)
    assert (stopped.text, len(stopped.dropped), stopped.runaway) == ("again", 39, True)


def test_forbidden_tokens_never_come() -> None:
    model = random_model(9)
    tokenizer = tokenizer_of(model.dims)
    wanted = [*tokenizer.suppressed_tokens, *tokenizer.blank_tokens]

    class Tempter(TorchUtterance):
        def decode(self, tokens: np.ndarray) -> np.ndarray:
            logits = super().decode(tokens)
            logits[:, wanted] += 1000.0
            return logits

    for beams in (1, 4):
        result, = decode(Tempter(model, features(9, 1)), tokenizer, [tokenizer.prompt()], [None], 6, [FAR], beams)
        assert not set(result.tokens) & set(tokenizer.suppressed_tokens)
        assert result.tokens[0] not in tokenizer.blank_tokens
        assert math.isfinite(result.avg_logprob)
