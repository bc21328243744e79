"""The weights of model=debug: the same everywhere, and what they say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.compositions import composition
from tests.tiny_model import tiny_dimensions
from whisper_factory import sources
from whisper_factory.errors import UserError
from whisper_factory.whisper import readers
from whisper_factory.whisper.readers import random
from whisper_factory.whisper.vocabulary import RankFile

DIGEST = "5d6c05723ed7eabc0bd98cee9406b07b4a591df5e3ea5b06457629a390f91dac"


def described(directory: Path, seed: int = 0, **dims: int) -> Path:
    text = json.dumps({"seed": seed, "dimensions": asdict(tiny_dimensions(**dims))})
    (directory / random.FILE).write_text(text, encoding="utf-8")
    return directory


def test_the_weights_are_a_whole_model_and_the_same_on_every_machine(tmp_path: Path) -> None:
    weights = readers.read(described(tmp_path), "random")
    readers.check(weights, tiny_dimensions(), "debug")
    total = hashlib.sha256()
    for name in sorted(weights.tensors):
        total.update(name.encode() + weights.tensors[name].tobytes())
    assert total.hexdigest() == DIGEST


def test_another_seed_is_another_model(tmp_path: Path) -> None:
    first = readers.read(described(tmp_path, 0, n_text_layer=1), "random").tensors
    second = readers.read(described(tmp_path, 1, n_text_layer=1), "random").tensors
    assert all((first[name] != second[name]).any() for name in first)


def test_the_sentence_is_english(tmp_path: Path) -> None:
    import whisper

    ranks = RankFile(Path(whisper.__file__).parent / "assets" / "gpt2.tiktoken")
    *words, end = random.SENTENCE
    assert b"".join(ranks.token(word) for word in words) == b" This engine was built from random weights."
    assert end == len(ranks)


def test_a_damaged_description_is_one_line(tmp_path: Path) -> None:
    (tmp_path / random.FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="does not say a seed"):
        readers.read(tmp_path, "random")


def test_only_auto_has_random_weights() -> None:
    made = composition("model=debug")
    source = sources.choose(made.model, made.weights, lambda found: False)
    assert source.kind == "random"
    made = composition("model=debug", "weights=openai")
    with pytest.raises(UserError, match="model 'debug' has no URL; use weights=auto"):
        sources.choose(made.model, made.weights, lambda found: False)
