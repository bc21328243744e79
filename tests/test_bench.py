"""`python -m whisper_factory.bench`: its table, its JSON, and each mistake in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real_engine import clip, duplex
from tests.whisper.test_generating import encoded, scripted
from whisper_factory import bench, bench_report, clips
from whisper_factory.whisper.transcribe import Transcriber

NAMES = ("river", "soup")


def manifest(folder: Path) -> Path:
    path = folder / "clips.jsonl"
    known = {found.name: found for found in clips.bundled("full")}
    lines = [json.dumps({"audio": str(clip(name)), "text": known[name].text}) for name in NAMES]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_table_and_json(python: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = python("whisper_factory.bench", f"engine_dir={duplex()}", f"clips={manifest(tmp_path)}", "repeats=3",
                  "threads=1", f"json={out}")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(out.read_text(encoding="utf-8"))
    assert (report["clip_count"], report["repeats"], report["threads"], report["wer"]) == (2, 3, 1, 0.0)
    for found in (report["latency_s"], report["first_token_s"]):
        assert list(found) == ["mean", "p50", "p90", "p95", "max"]
        assert 0 < found["p50"] <= found["p90"] <= found["p95"] <= found["max"]
    assert report["first_token_s"]["mean"] < report["latency_s"]["mean"]
    parts = {part["part"]: part for part in report["parts"]}
    assert list(parts) == ["log-mel", "encoder", "prompt", "tokens", "choosing tokens, KV cache", "rest"]
    assert sum(part["seconds_per_clip"] for part in parts.values()) == pytest.approx(report["latency_s"]["mean"])
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    assert all(part["seconds_per_clip"] >= 0 for part in parts.values())
    tokens = sum(entry["tokens"] for entry in report["clips"])
    assert parts["tokens"]["calls_per_clip"] == tokens / 2  # the prompt brings the first, the last is <|endoftext|>
    total = sum(sum(entry["latency_s"]) for entry in report["clips"])
    assert total / 6 == pytest.approx(report["latency_s"]["mean"])
    factor = report["real_time_factor"]
    assert factor["min"] <= factor["median"] <= factor["max"]
    memory = report["memory_bytes"]
    assert 20e6 < memory["baseline"] < memory["loaded"] - 20e6 < memory["peak"]
    assert report["load_s"] > 0
    assert report["first_clip_s"] > 0
    printed = done.stdout.splitlines()
    assert printed[0] == "engine        tiny.en int8 test, paged KV cache, onnxruntime, 1 threads"
    assert printed == bench_report.table(report)
    mean = f"{1000 * report['latency_s']['mean']:.1f}"
    assert any(re.fullmatch(rf"audio to text +{re.escape(mean)}( +[\d.]+){{4}}", line) for line in printed)
    assert printed[-1].startswith("words         WER 0.00 % (0 errors in 2")


def test_flags_as_the_other_commands_have_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clips").mkdir()
    for name in NAMES:
        (tmp_path / "clips" / f"{name}.flac").write_bytes(clip(name).read_bytes())
    (tmp_path / "clips" / "notes.txt").write_text("no audio", encoding="utf-8")
    counts = []
    for given in ([f"files={tmp_path / 'clips'}"], [f"files={tmp_path / 'clips' / '*.flac'}"],
                  ["--files", clip("river"), clip("soup")], [f"files={clip('river')}", clip("soup")],
                  [f"files={clip('river')}", f"files={clip('soup')}"], ["--input_file", clip("river"), clip("soup")],
                  ["--dataset", manifest(tmp_path)]):
        assert bench.main([f"--engine_dir={duplex()}", "--repeats", "1", "threads=1", *map(str, given)]) == 0
        counts.append(capsys.readouterr().out.splitlines()[1].split()[1])
    assert counts == ["2"] * 7


def test_without_clips_the_bundled_ones() -> None:
    wanted = bench.parser().parse(bench._dashed(["engine_dir=e"], bench.parser().names()))
    assert [text for _, text in bench._clips(wanted)] == [found.text for found in clips.bundled("quick")]


def test_percentiles_are_interpolated() -> None:
    found = bench_report.distribution(value / 100 for value in range(101))
    assert found == pytest.approx({"mean": 0.5, "p50": 0.5, "p90": 0.9, "p95": 0.95, "max": 1.0})


def test_a_runtime_that_generates_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be told apart is said, not guessed."""
    engine, tokenizer = scripted([])
    engine.answers = [encoded(tokenizer, " words")] * 4
    monkeypatch.setattr(Transcriber, "load", lambda directory, threads: Transcriber(engine, tokenizer))
    out = tmp_path / "report.json"
    assert bench.main([f"engine_dir={duplex()}", f"files={clip('river')}", "repeats=2", f"json={out}"]) == 0
    printed = capsys.readouterr().out
    assert bench_report.UNSPLIT in printed.splitlines()
    assert "first token " not in printed
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["first_token_s"] is None
    assert [part["part"] for part in report["parts"]] == ["log-mel", "generate", "choosing tokens, KV cache", "rest"]
    assert report["parts"][1]["calls_per_clip"] == 1


def test_no_hydra() -> None:
    """Nor torch; a mistake is told before anything heavy is imported."""
    code = ("import sys; from whisper_factory import bench; bench.main(['engine_dir=nowhere']);"
            "print(sorted({'hydra', 'omegaconf', 'torch', 'onnxruntime', 'numpy'} & set(sys.modules)))")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


@pytest.mark.parametrize(("given", "said"), [
    (["engine_dir={engine}", "repeats=0"], "repeats=0 measures nothing; choices: 1 or more"),
    (["engine_dir={engine}", "repeats=many"], "argument --repeats: invalid int value: 'many'"),
    (["engine_dir={engine}", "threads=0"], "--threads 0 is not a number of threads"),
    (["engine_dir={engine}", "engine=3"], "unknown flag '--engine'; did you mean '--engine_dir'?"),
    (["clips=x.jsonl"], "the following arguments are required: --engine_dir"),
    (["engine_dir={tmp}"], "is not an engine directory"),
    (["engine_dir={engine}", "clips={tmp}/none.jsonl"], "cannot read the clips' manifest"),
    (["engine_dir={engine}", "clips={tmp}/empty.jsonl"], "lists no clips"),
    (["engine_dir={engine}", "clips={tmp}/empty.jsonl", "files=a.wav"], "not allowed with argument"),
    (["engine_dir={engine}", "files={tmp}/none.wav"], "cannot read the audio file"),
    (["engine_dir={engine}", "files={tmp}/empty.jsonl"], "empty.jsonl"),
    (["engine_dir={engine}", "files={tmp}"], "no WAV or FLAC file there; name files, a folder or a pattern"),
    (["engine_dir={engine}", "files={tmp}/*.wav"], "no WAV or FLAC file there"),
    (["engine_dir={engine}", "json={tmp}/none/out.json"], "its directory does not exist; create it first"),
    (["engine_dir={engine}", "num_beams=9"], "num_beams=9: this engine takes 1 to 1"),
    (["engine_dir={engine}", "language=de"], "it is English-only"),
])
def test_mistakes(given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("[]", encoding="utf-8")
    assert bench.main([word.format(engine=duplex(), tmp=tmp_path) for word in given]) == 2
    printed = capsys.readouterr()
    line, = printed.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert printed.out == ""
