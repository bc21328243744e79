"""Decoding with an engine that generates by itself, on its own and through the transcriber."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.whisper.torch_engine import engine as torch_engine
from tests.whisper.torch_engine import tokenizer_of
from whisper_factory.backends.engines import GeneratingEngine
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper import generating
from whisper_factory.whisper.logmel import log_mel
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.tokenizer import Tokenizer
from whisper_factory.whisper.transcribe import Transcriber


class Scripted:
    """Answers what it was told to; remembers what it was asked."""

    def __init__(self, spec: EngineSpec, answers: list[list[int]], languages: list[list[int]] | None = None) -> None:
        self.spec, self.threads = spec, 1
        self.answers, self.languages = answers, languages or []
        self.asked: list[tuple[tuple[int, ...], list[list[int]], int, int]] = []

    def generate(
        self, mel: NDArray[np.float32], prompts: NDArray[np.int64], max_new_tokens: int, num_beams: int
    ) -> list[list[int]]:
        assert mel.dtype == np.float32
        assert prompts.dtype == np.int64
        self.asked.append((mel.shape, prompts.tolist(), max_new_tokens, num_beams))
        chosen = self.languages if prompts.shape[1] == 1 else self.answers
        return [chosen.pop(0)[:max_new_tokens] for _ in mel]


def scripted(answers: list[list[int]], languages: list[list[int]] | None = None,
             **changes: object) -> tuple[Scripted, Tokenizer]:
    like = torch_engine(multilingual=languages is not None, **changes)  # type: ignore[arg-type]
    return Scripted(like.spec, answers, languages), tokenizer_of(like.model.dims)


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """OpenAI's encoding of a text."""
    from whisper.tokenizer import get_tokenizer

    return list(get_tokenizer(multilingual=tokenizer.is_multilingual).encode(text))


def noise(seconds: float) -> NDArray[np.float32]:
    return 0.3 * np.random.default_rng(0).standard_normal(int(16_000 * seconds)).astype(np.float32)


def mels(count: int) -> NDArray[np.float32]:
    return np.stack([log_mel(noise(1), 80, 100)] * count)


def test_every_end_of_an_answer() -> None:
    """As `decoding.decode` names them: by itself, at the limit, at the window's own budget."""
    engine, tokenizer = scripted([])
    words = encoded(tokenizer, " The river is too cold for swimming at this time of the year, as those who know say")
    engine.answers = [words[:5], words, words, []]
    prompts = [tokenizer.prompt()] * 4
    found = generating.decode(engine, mels(4), tokenizer, prompts, [None] * 4, 12, [40, 40, 8, 40])
    assert engine.asked == [((4, 80, 100), prompts, 12, 1)]
    assert [(len(one.tokens), one.stopped, one.runaway) for one in found] == [
        (5, "eot", False), (12, "length", False), (8, "budget", True), (0, "eot", False)]
    assert found[0].text == "The river is too cold"
    assert found[3].text == ""
    assert {one.avg_logprob for one in found} == {None}


def test_an_answer_that_ends_right_before_its_limit() -> None:
    engine, tokenizer = scripted([[5] * 11, [5] * 12])
    found = generating.decode(engine, mels(2), tokenizer, [tokenizer.prompt()] * 2, [None] * 2, 12, [40, 40], 3)
    assert [one.stopped for one in found] == ["eot", "length"]
    assert engine.asked[0][3] == 3


def test_the_batch_is_asked_for_no_more_than_its_longest_budget() -> None:
    engine, tokenizer = scripted([[5], [6]])
    generating.decode(engine, mels(2), tokenizer, [tokenizer.prompt()] * 2, [None] * 2, 200, [17, 30])
    assert engine.asked[0][2] == 30


def test_a_loop_is_a_runaway() -> None:
    engine, tokenizer = scripted([])
    engine.answers = [encoded(tokenizer, " and so on" * 20)]
    found, = generating.decode(engine, mels(1), tokenizer, [tokenizer.prompt()], [None], 200, [200])
    assert (found.stopped, found.runaway) == ("eot", True)


def test_languages_are_the_token_after_the_start() -> None:
    engine, tokenizer = scripted([], [])
    engine.languages = [[tokenizer.language_tokens["de"]], [tokenizer.no_speech], [], [tokenizer.language_tokens["en"]]]
    assert generating.detect_languages(engine, mels(4), tokenizer) == ["de", None, None, "en"]
    assert engine.asked == [((4, 80, 100), [[tokenizer.sot]] * 4, 1, 1)]


def test_the_protocol_tells_the_two_kinds_of_engines_apart() -> None:
    engine, _ = scripted([])
    assert isinstance(engine, GeneratingEngine)
    assert not isinstance(torch_engine(), GeneratingEngine)


@pytest.fixture
def hello() -> tuple[Transcriber, Scripted]:
    engine, tokenizer = scripted([], [])
    engine.answers = [encoded(tokenizer, " Hello there.") for _ in range(6)]
    return Transcriber(engine, tokenizer), engine


def test_a_clip_in_a_language_that_was_not_detected_is_taken_for_english(hello: tuple[Transcriber, Scripted]) -> None:
    transcriber, engine = hello
    tokens = transcriber.tokenizer.language_tokens
    engine.languages = [[tokens["fr"]], [transcriber.tokenizer.timestamp_begin]]
    french, unknown = transcriber.transcribe([noise(2), noise(3)], Options(max_new_tokens=20))
    assert (french.language, french.warnings) == ("fr", [])
    assert unknown.language == "en"
    assert unknown.warnings == ["no language was detected, English is assumed; name it (--language) if it is another"]
    assert [transcript.text for transcript in (french, unknown)] == ["Hello there."] * 2
    first, second = engine.asked
    assert first[0] == second[0] == (2, 80, 3000)
    assert [prompt[1] for prompt in second[1]] == [tokens["fr"], tokens["en"]]
    assert second[2:] == (20, 1)
    assert french.timings.encoder < french.timings.decoder + french.timings.log_mel


def test_a_named_language_is_not_looked_for(hello: tuple[Transcriber, Scripted]) -> None:
    transcriber, engine = hello
    found, = transcriber.transcribe([noise(70)], Options(language="de", max_new_tokens=20, batch_size=2))
    assert found.language == "de"
    assert len(found.windows) == len(engine.asked[0][1]) + sum(len(asked[1]) for asked in engine.asked[1:])
    assert all(len(asked[1][0]) == 4 for asked in engine.asked)
    assert found.text.startswith("Hello there. Hello there.")


def test_an_english_only_model_has_no_language_to_find() -> None:
    engine, tokenizer = scripted([], None)
    engine.answers = [encoded(tokenizer, " Hello.")]
    found, = Transcriber(engine, tokenizer).transcribe([noise(2)])
    assert (found.language, found.text, found.warnings) == (None, "Hello.", [])
    assert engine.asked == [((1, 80, 3000), [tokenizer.prompt()], 16 + 28, 1)]
