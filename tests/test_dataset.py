"""`--dataset`: the word error rate of a manifest, as validation counts it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.real_engine import clip, tiny_en
from whisper_factory import clips, dataset, flags, run
from whisper_factory.steps import validate


def test_errors_are_counted_over_all_clips_together() -> None:
    pairs = [("It costs 21 dollars.", "it costs twenty one dollars"), ("We won't go", "We will go"), ("Yes", "")]
    found = dataset.score(pairs)
    assert (found.clips, found.words, found.word_errors) == (3, 10, 2)
    assert found.wer == 20.0
    assert dataset.score([]).wer == 0.0


def test_percent_to_two_decimals_as_validation_has_it() -> None:
    found = dataset.score([("one two three", "one two")])
    rows = [{"word_errors": found.word_errors, "words": found.words}]
    assert found.wer == validate._percent(rows, "word_errors") == 33.33
    assert dataset.summary(found, 8.0, 2.0) == (
        "WER 33.33 % over 1 clips (1 errors in 3 words), real-time factor 0.250")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two bundled clips, one of them with a text of another number of words."""
    path = tmp_path / "clips.jsonl"
    lines = [{"audio": str(clip("river")), "text": "The river is too cold for swimming at this time of year."},
             {"audio": str(clip("soup")), "text": "Something else entirely"}]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def test_a_manifest_is_heard(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    assert run.main(["--engine_dir", str(tiny_en()), "--dataset", str(manifest), "--threads", "1", "--output_json",
                     str(report), "--padding_strategy", "longest"]) == 0
    river, soup, total = capsys.readouterr().out.splitlines()
    assert river == f"{clip('river')}: The river is too cold for swimming at this time of year."
    heard = [line.partition(": ")[2] for line in (river, soup)]
    expected = dataset.score(zip([entry.text for entry in clips.from_manifest(manifest)], heard, strict=True))
    assert expected.word_errors > 0
    assert re.fullmatch(rf"WER {expected.wer:.2f} % over 2 clips \({expected.word_errors} errors in {expected.words} "
                        r"words\), real-time factor \d\.\d{3}", total)
    files = json.loads(report.read_text(encoding="utf-8"))["files"]
    assert [Path(entry["path"]).stem for entry in files] == ["river", "soup"]


def test_longest_is_upstreams_name_for_nopad(monkeypatch: pytest.MonkeyPatch) -> None:
    def options(*asked: str) -> str | None:
        wanted = run._parse(["--engine_dir", "e", "--input_file", "a.wav", *asked])
        return flags.options(wanted).padding_strategy

    assert options("--padding_strategy", "longest") == options("--padding_strategy", "nopad") == "nopad"
    assert options("--padding_strategy", "max") == "max"
    assert options() is None


@pytest.mark.parametrize(("flags", "said"), [
    (["--dataset", "m.jsonl", "--input_file", "a.wav"], "--input_file: not allowed with argument --dataset"),
    (["--input_file", "a.wav", "--dataset", "m.jsonl"], "--dataset: not allowed with argument --input_file"),
    ([], "one of the arguments --input_file --dataset is required"),
    (["--dataset", "/no/such/manifest.jsonl"], "cannot read the clips' manifest '/no/such/manifest.jsonl'"),
])
def test_mistakes(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--engine_dir", str(tiny_en()), *flags]) == 2
    line, = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_manifest_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("[]", encoding="utf-8")
    assert run.main(["--engine_dir", str(tiny_en()), "--dataset", str(empty)]) == 2
    assert "lists no clips" in capsys.readouterr().err


def test_what_max_new_tokens_is_for() -> None:
    """A user of upstream's example looks here when a Jetson runs out of pinned memory."""
    text = " ".join(run.parser().format_help().split())
    assert "TensorRT-LLM pins memory in proportion" in text
