"""`python -m whisper_factory.run`: what it prints, and each mistake in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.real_engine import clip, duplex, tiny_en
from whisper_factory import console, run
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault


def arguments(*more: object, files: tuple[str, ...] = ("sample",)) -> list[str]:
    return ["--engine_dir", str(tiny_en()), "--input_file", *(str(clip(name)) for name in files), "--threads", "1",
            *map(str, more)]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run with wrong arguments: exit code 2 and one line on standard error, which is returned."""

    def check(*given: object, code: int = 2) -> str:
        assert run.main([str(part) for part in given]) == code
        said = capsys.readouterr()
        assert said.out == ""
        line, = said.err.splitlines()
        assert line.startswith("error: ")
        return line

    return check


def test_a_transcript_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In the order given; other rates and channel counts are read too."""
    audio, _ = soundfile.read(clip("sample"))
    stereo = tmp_path / "slow stereo.wav"
    soundfile.write(stereo, np.stack([audio[::2], audio[::2]], axis=1), 8_000)
    assert run.main([*arguments(files=("river",)), "--input_file", str(stereo)]) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first == f"{clip('river')}: The river is too cold for swimming at this time of year."
    assert second.startswith(f"{stereo}: Good morning")
    *_, last = said.err.splitlines()
    assert "s of audio in" in last
    assert "real-time factor" in last


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    assert run.main(arguments("--output_json", path, "--name", "tonight", "--num_beams", "2", "--max_input_len", "3000",
                              "--log_level", "error", "--batch_size", 1, "--max_new_tokens", 64, "--task", "transcribe",
                              "--language", "en", "--padding_strategy", "nopad")) == 0
    said = capsys.readouterr()
    assert said.err == ""
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["name"] == "tonight"
    heard, = report["files"]
    assert said.out == f"{heard['path']}: {heard['text']}\n"
    assert heard["windows"][0]["decoded"]["stopped"] == "eot"
    assert heard["windows"][0]["decoded"]["tokens"] == heard["tokens"]
    assert heard["seconds"] == pytest.approx(4.84, abs=0.01)
    assert set(heard["timings"]) == {"log_mel", "encoder", "decoder"}


def test_cut_and_trimmed_audio_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio, rate = soundfile.read(clip("sample"))
    long = tmp_path / "long.flac"
    soundfile.write(long, np.concatenate([audio] * 2), rate)
    given = ["--engine_dir", str(duplex()), "--input_file", str(long), "--threads", "1"]
    assert run.main(given) == 0
    assert "longer than the engine's 7.5 s, cut in pauses: at " in capsys.readouterr().err
    assert run.main([*given, "--padding_strategy", "trim"]) == 0
    assert "warning: " + str(long) + ": the last 2.1" in capsys.readouterr().err


def test_mistakes_in_flags(refused) -> None:  # type: ignore[no-untyped-def]
    assert "unknown flag '--num_beam'; did you mean '--num_beams'?" in refused(*arguments("--num_beam", 4))
    assert "--dataset: not allowed with argument --input_file" in refused(*arguments("--dataset", "x"))
    assert "one of the arguments --input_file --dataset is required" in refused("--engine_dir", tiny_en())
    assert "required: --engine_dir" in refused("--input_file", clip("sample"))
    assert "invalid int value: 'two'" in refused(*arguments("--num_beams", "two"))
    assert "unknown --log_level 'loud'; choices: debug" in refused(*arguments("--log_level", "loud"))
    assert "--threads 0 is not a number of threads" in refused(*arguments("--threads", 0))
    assert "its directory does not exist" in refused(*arguments("--output_json", "/nowhere/at/all.json"))


def test_what_the_engine_cannot_do(refused) -> None:  # type: ignore[no-untyped-def]
    assert "num_beams=9: this engine takes 1 to 5" in refused(*arguments("--num_beams", 9))
    assert "max_new_tokens=0: this engine takes 1 to 224" in refused(*arguments("--max_new_tokens", 0))
    assert "batch_size=99: this engine takes 1 to 8" in refused(*arguments("--batch_size", 99))
    assert "unknown padding_strategy 'shortest'" in refused(*arguments("--padding_strategy", "shortest"))
    assert "tiny.en cannot hear language 'fr'" in refused(*arguments("--language", "fr"))
    assert "tiny.en cannot translate" in refused(*arguments("--task", "translate"))
    line = refused(*arguments("--max_input_len", 750))
    assert "--max_input_len 750 disagrees with the engine, which was built for 3000 mel frames (30 s;" in line
    assert "profile.max_input_len=750" in line


def test_audio_that_is_none(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each is found before the engine is loaded: the engine here has no graphs."""
    hollow = tmp_path / "engine"
    hollow.mkdir()
    EngineSpec.load(tiny_en() / "engine").save(hollow)
    empty, header_only, text = tmp_path / "empty.wav", tmp_path / "header.wav", tmp_path / "text.wav"
    empty.touch()
    soundfile.write(header_only, np.zeros(0, np.float32), 16_000)
    text.write_text("not audio", encoding="utf-8")
    for path, said in ((tmp_path / "none.wav", "cannot read"), (empty, "is empty"), (header_only, "is empty"),
                       (text, "is not audio"), (tmp_path, "is a directory")):
        line = refused("--engine_dir", hollow, "--input_file", clip("sample"), path)
        assert said in line
        assert str(path) in line


def test_engines_that_are_none(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    line = refused("--engine_dir", tmp_path, "--input_file", clip("sample"))
    assert f"'{tmp_path}' is not an engine directory" in line
    broken = tmp_path / "broken"
    shutil.copytree(tiny_en() / "engine", broken)
    spec = EngineSpec.load(broken)
    replace(spec, backend="onnxrun").save(broken)
    assert "unknown backend 'onnxrun'; did you mean 'onnxruntime'?" in refused(
        "--engine_dir", broken, "--input_file", clip("sample"))
    spec.save(broken)
    (broken / "decoder.onnx").write_bytes(b"no graph")
    assert "decoder.onnx" in refused("--engine_dir", broken, "--input_file", clip("sample"))


def test_other_ends(monkeypatch: pytest.MonkeyPatch, refused) -> None:  # type: ignore[no-untyped-def]
    def fail_with(error: BaseException) -> None:
        def failing(wanted: object) -> None:
            raise error

        monkeypatch.setattr(run, "run", failing)

    for variable in console.WANT_TRACEBACK:
        monkeypatch.delenv(variable, raising=False)
    fail_with(EnvironmentFault("no disk"))
    assert refused(*arguments(), code=4) == "error: no disk"
    fail_with(MemoryError())
    assert "out of memory" in refused(*arguments(), code=4)
    fail_with(ZeroDivisionError("division by zero"))
    assert "this is a bug of whisper_factory: ZeroDivisionError" in refused(*arguments(), code=1)
    monkeypatch.setenv("WHISPER_FACTORY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run.main(arguments())
    fail_with(KeyboardInterrupt())
    assert run.main(arguments()) == 130


def test_running_imports_nothing_of_building() -> None:
    """And answers a mistake without numpy."""
    check = ("import sys; from whisper_factory import run; code = run.main(sys.argv[1:]); "
             "heavy = {'hydra', 'omegaconf', 'torch', 'onnx', 'rich', 'jiwer', 'safetensors', 'whisper'}; "
             "print(code, sorted(heavy & set(sys.modules)), 'numpy' in sys.modules)")

    def last_line(*given: str) -> str:
        done = subprocess.run([sys.executable, "-c", check, *given], capture_output=True, text=True, check=True,
                              env={**os.environ, "HYDRA_FULL_ERROR": "0"})
        return done.stdout.splitlines()[-1]

    assert last_line(*arguments()) == "0 [] True"
    assert last_line(*arguments("--num_beam")) == "2 [] False"
