"""The tokenizer, held against OpenAI's for English-only models and for 99 and 100 languages."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.tokenizer import LANGUAGES as OPENAIS_LANGUAGES
from whisper.tokenizer import TO_LANGUAGE_CODE, get_tokenizer
from whisper.tokenizer import Tokenizer as Reference

from tests.tiny_model import tiny_dimensions
from whisper_factory.errors import UserError
from whisper_factory.whisper.languages import ALIASES, LANGUAGES, resolve_language
from whisper_factory.whisper.tokenizer import Tokenizer

ASSETS = Path(whisper.__file__).parent / "assets"
VOCABULARIES = {"english": 51864, "multilingual": 51865, "large-v3": 51866}
SENTENCES = [
    "Good morning. The train leaves at 7:30, doesn't it?", " -- (applause) ♪ la la ♪", "<|endoftext|> is text here",
    "Grüße aus Zürich – 東京では雪が降っています。", "मौसम अच्छा है", "\n\n  two spaces\tand a tab ",
    "I'LL they're x'd", "",
]  # fmt: skip


@cache
def mine(kind: str) -> Tokenizer:
    file = "gpt2.tiktoken" if kind == "english" else "multilingual.tiktoken"
    return Tokenizer.load(ASSETS / file, tiny_dimensions(n_vocab=VOCABULARIES[kind]))


def openais(kind: str, language: str | None = None, task: str | None = None) -> Reference:
    languages = 100 if kind == "large-v3" else 99
    return get_tokenizer(kind != "english", num_languages=languages, language=language, task=task)


@pytest.fixture(params=VOCABULARIES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_special_tokens(kind: str) -> None:
    for name in ("eot", "sot", "sot_prev", "sot_lm", "no_speech", "no_timestamps", "transcribe", "translate",
                 "timestamp_begin"):
        assert getattr(mine(kind), name) == getattr(openais(kind), name), name
    assert len(mine(kind).special) + len(mine(kind).ranks) == VOCABULARIES[kind]


def test_language_tokens(kind: str) -> None:
    reference = openais(kind)
    known = dict(zip(reference.all_language_codes, reference.all_language_tokens, strict=True))
    assert mine(kind).language_tokens == known
    assert list(mine(kind).language_tokens.values()) == sorted(known.values())


def test_suppressed_and_blank_tokens(kind: str) -> None:
    from whisper.decoding import DecodingOptions, DecodingTask

    class Model:  # as much of a model as the task looks at
        dims = tiny_dimensions(n_vocab=VOCABULARIES[kind])
        is_multilingual = kind != "english"
        num_languages = dims.num_languages
        decoder = SimpleNamespace(blocks=[])

    options = DecodingOptions(language="en", without_timestamps=True)
    blank, suppress = DecodingTask(Model(), options).logit_filters  # type: ignore[arg-type]
    assert mine(kind).suppressed_tokens == tuple(suppress.suppress_tokens)
    assert list(mine(kind).blank_tokens) == [*blank.tokenizer.encode(" "), blank.tokenizer.eot]


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences(kind: str, text: str) -> None:
    assert mine(kind).decode(openais(kind).encode(text, disallowed_special=())) == text


@given(st.text())
@settings(deadline=None)
def test_any_text_comes_back(text: str) -> None:
    for kind in VOCABULARIES:
        assert mine(kind).decode(openais(kind).encode(text, disallowed_special=())) == text


def test_decode_drops_special_tokens_and_replaces_broken_characters(kind: str) -> None:
    tokenizer = mine(kind)
    said = [tokenizer.sot, *openais(kind).encode(" hello"), tokenizer.timestamp_begin + 50, tokenizer.eot]
    assert tokenizer.decode(said) == " hello"
    half = openais(kind).encode("雪")[:1]
    assert tokenizer.decode(half) == openais(kind).decode(half)


@pytest.mark.parametrize("task", ["transcribe", "translate"])
@pytest.mark.parametrize("language", ["en", "de", "haw", "su"])
def test_multilingual_prompts(language: str, task: str) -> None:
    for kind in ("multilingual", "large-v3"):
        expected = openais(kind, language, task).sot_sequence_including_notimestamps
        assert mine(kind).prompt(language, task) == list(expected)


def test_english_prompt() -> None:
    expected = list(openais("english").sot_sequence_including_notimestamps)
    assert mine("english").prompt(None, "transcribe") == mine("english").prompt("English", "transcribe") == expected


@pytest.mark.parametrize(("kind", "language", "task", "says"), [
    ("english", "de", "transcribe", "only transcribe English"),
    ("english", None, "translate", "only transcribe English"),
    ("multilingual", None, "transcribe", "needs a language"), ("multilingual", "yue", "transcribe", "unknown language"),
    ("multilingual", "en", "transcribed", "did you mean 'transcribe'"),
])  # fmt: skip
def test_a_prompt_that_the_model_does_not_have(kind: str, language: str | None, task: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        mine(kind).prompt(language, task)


def test_languages_are_openais() -> None:
    assert list(LANGUAGES.items()) == list(OPENAIS_LANGUAGES.items())
    assert {**{name: code for code, name in LANGUAGES.items()}, **ALIASES} == TO_LANGUAGE_CODE


@pytest.mark.parametrize(("name", "code"), [
    ("en", "en"), ("German", "de"), (" DE ", "de"), ("haitian creole", "ht"), ("Mandarin", "zh"), ("cantonese", "yue"),
])  # fmt: skip
def test_languages_by_code_name_and_alias(name: str, code: str) -> None:
    assert resolve_language(name) == code


def test_an_unknown_language_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'german'"):
        resolve_language("germann")
    with pytest.raises(UserError, match="unknown language"):
        resolve_language("cantonese", 99)


def test_the_wrong_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="51864 tokens, the model has 51865"):
        Tokenizer.load(ASSETS / "gpt2.tiktoken", tiny_dimensions(multilingual=True))


def test_loading_writes_no_cache_and_opens_no_connection(tmp_path: Path) -> None:
    program = """
import socket, sys
from pathlib import Path
def refuse(*_): raise AssertionError("a connection")
socket.socket.connect = socket.getaddrinfo = refuse
from tests.tiny_model import tiny_dimensions
from whisper_factory.whisper.tokenizer import Tokenizer
tokenizer = Tokenizer.load(Path(sys.argv[1]), tiny_dimensions())
assert tokenizer.decode([31373]) == "hello"
assert not {"tiktoken", "regex"} & set(sys.modules)
"""
    home = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "TIKTOKEN_CACHE_DIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-B", "-c", program, str(ASSETS / "gpt2.tiktoken")]
    subprocess.run(command, check=True, env={**os.environ, **home})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [*SENTENCES, "a  b   ", "x\u00a0y \u3000z", "½ Ⅷ 一二三 “naïve” $5.00",
                                  "it''s 'twas o'clock'll"])
def test_encode(kind: str, text: str) -> None:
    assert mine(kind).encode(text) == openais(kind).encoding.encode(text, disallowed_special=())


@given(st.text(st.sampled_from("ab'stlvré e 12\n\t.,一½!\u00a0E♪")))
@settings(max_examples=200, deadline=None)
def test_encode_any_text(text: str) -> None:
    assert mine("english").encode(text) == openais("english").encoding.encode(text, disallowed_special=())
    assert mine("english").decode(mine("english").encode(text)) == text
