from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.compositions import composition, tiny_en
from whisper_factory import download, plan, sources
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.planned_steps import PlannedStep
from whisper_factory.schema import Composition
from whisper_factory.steps import fetch
from whisper_factory.steps.context import Context


def planned(made: Composition) -> PlannedStep:
    return plan.make(made, lambda step, key: False).steps[0]


def context(tmp_path: Path) -> Context:
    return Context(say=lambda line: None, downloads=tmp_path / "downloads", failures=tmp_path / "failed")


def run(made: Composition, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    fetch.run(planned(made), {}, out, context(tmp_path))
    return out


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("model", "vocabulary"), [("tiny.en", sources.GPT2), ("base", sources.MULTILINGUAL)])
def test_a_package_gives_weights_and_openais_vocabulary(
    model: str, vocabulary: sources.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = composition(f"model={model}", "weights=package")
    real = sources.packaged
    without_openai = {"whisper/assets/gpt2.tiktoken", "whisper/assets/multilingual.tiktoken"}
    monkeypatch.setattr(sources, "packaged", lambda file: None if file in without_openai else real(file))
    out = run(made, tmp_path)
    parts = [real(part.file) for part in made.model.package.weights] if made.model.package else []
    assert (out / "weights" / "model.bin").read_bytes() == b"".join(part.read_bytes() for part in parts if part)
    assert sha256(out / "vocabulary.tiktoken") == vocabulary.sha256  # derived from the package's tokenizer.json


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_what_was_hashed_as_a_whole_is_told(model: str, tmp_path: Path) -> None:
    step = planned(composition(f"model={model}", "weights=package"))
    whole = [f"weights/{name}" for name, parts in step.params["files"].items()
             if len(parts) == 1 and name not in step.hints["content"]]
    assert ("weights/model.bin" in whole) == (model == "tiny.en")  # base's comes in parts
    hashed = fetch.run(step, {}, tmp_path, context(tmp_path))
    assert hashed == {name: sha256(tmp_path / name) for name in whole}


def test_changed_package_bytes_are_refused(tmp_path: Path) -> None:
    made = tiny_en()
    assert made.model.package is not None
    made.model.package.weights[0].sha256 = "0" * 64
    with pytest.raises(UserError, match=r"model.bin: SHA-256 is 1a5afae0\w+, expected 0000"):
        run(made, tmp_path)


def test_openais_own_cache_is_used_when_it_has_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "whisper").mkdir(parents=True)
    (tmp_path / "cache" / "whisper" / "tiny.en.pt").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    changes: dict[str, Any] = {"weights.source": "openai", "model.sha256": digest,
                               "model.url": "http://127.0.0.1:9/tiny.en.pt"}
    out = run(tiny_en(**changes), tmp_path)
    assert (out / "weights" / "tiny.en.pt").read_bytes() == b"weights"
    (tmp_path / "cache" / "whisper" / "tiny.en.pt").write_bytes(b"other")  # and passed over when it is another
    (tmp_path / "again").mkdir()
    with pytest.raises(EnvironmentFault, match=r"cannot download tiny\.en\.pt from http://127"):
        fetch.run(planned(tiny_en(**changes)), {}, tmp_path / "again", context(tmp_path))


def test_a_vocabulary_that_is_nowhere_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    made = tiny_en()
    step = planned(made)
    step.hints["tokenizers"] = []
    step.hints["vocabulary_url"] = "http://127.0.0.1:9/gpt2.tiktoken"
    (tmp_path / "out").mkdir()
    with pytest.raises(EnvironmentFault, match=r"cannot download gpt2.tiktoken .*whisper-factory\[tiny-en\]"):
        fetch.run(step, {}, tmp_path / "out", context(tmp_path))
