"""Loading: what this machine cannot run is refused before anything is imported."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import whisper

from tests.backends.tensorrt_llm import runtime
from tests.backends.tensorrt_llm.making import declared
from whisper_factory import backends, clips, run
from whisper_factory.backends import tensorrt_llm
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, FactoryError, UserError
from whisper_factory.whisper.transcribe import VOCABULARY_FILE


def refusal(engine: Path, kind: type[FactoryError] = UserError) -> str:
    with pytest.raises(kind) as refused:
        tensorrt_llm.load(engine)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return runtime.engine_directory(tmp_path / "engine", tensorrt_llm.settle(declared()))


def test_an_engine_of_another_version(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.running(monkeypatch, tmp_path, declared(), installed="0.13.0")
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)  # not even imported
    said = refusal(engine)
    assert "built with TensorRT-LLM 0.12.0, installed is 0.13.0" in said
    assert "trtllm_version=0.13.0" in said


def test_an_engine_of_another_gpu(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.running(monkeypatch, tmp_path, declared(), capability=(8, 9))
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    assert "built for compute capability 8.7, this GPU has 8.9" in refusal(engine)


def test_a_kit_that_is_not_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = tmp_path / "kit"
    kit.mkdir()
    tensorrt_llm.write_kit(declared(), kit)
    assert "encoder/rank0.engine is missing); run the kit's build.sh on its device" in refusal(kit / "runtime")
    assert run.main(["--engine_dir", str(kit), "--input_file", "a.wav"]) == 2
    line, = capsys.readouterr().err.splitlines()
    assert f"'{kit}' is a build kit, its engine is not built yet; on the device it is for, run: bash {kit}/b" in line


def test_half_an_engine(engine: Path) -> None:
    (engine / "decoder" / "config.json").unlink()
    assert "decoder/config.json is missing" in refusal(engine)
    shutil.rmtree(engine / "encoder")
    assert "encoder/rank0.engine is missing" in refusal(engine)


def test_no_stamp(engine: Path) -> None:
    (engine / "stamp.json").unlink()
    assert "has no stamp.json" in refusal(engine)


def test_no_toolkit(engine: Path) -> None:
    assert "needs tensorrt_llm, not installed here" in refusal(engine, EnvironmentFault)


def test_the_command_says_so_too(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(Path(whisper.__file__).parent / "assets" / "gpt2.tiktoken", engine / VOCABULARY_FILE)
    clip = str(clips.bundled("quick")[0].path)
    assert run.main(["--engine_dir", str(engine), "--input_file", clip]) == EnvironmentFault.exit_code
    line, = capsys.readouterr().err.splitlines()
    assert "needs tensorrt_llm, not installed here" in line


def test_a_toolkit_that_cannot_be_imported(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.running(monkeypatch, tmp_path, declared())
    monkeypatch.delitem(sys.modules, "tensorrt_llm")
    monkeypatch.delitem(sys.modules, "tensorrt_llm.runtime")
    (tmp_path / "site" / "tensorrt_llm.py").write_text(
        "raise OSError('libnvinfer.so.10: cannot open shared object file\\nin two lines')", encoding="utf-8")
    assert "cannot be imported (OSError: libnvinfer.so.10: cannot open shared object file in two lines)" in (
        refusal(engine, EnvironmentFault))


def test_what_it_prints_when_imported_is_no_transcript(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime.running(monkeypatch, tmp_path, declared())
    monkeypatch.delitem(sys.modules, "tensorrt_llm")
    package = tmp_path / "site" / "tensorrt_llm"
    package.mkdir()
    (package / "__init__.py").write_text(
        "print('[TensorRT-LLM] TensorRT-LLM version: 0.12.0')\nimport types\n"
        "logger = types.SimpleNamespace(set_level=lambda level: None)\nMapping = lambda w, r: ('mapping', w, r)\n",
        encoding="utf-8")
    tensorrt_llm.load(engine)
    said = capsys.readouterr()
    assert said.out == ""
    assert "TensorRT-LLM version" in said.err
    sys.modules.pop("tensorrt_llm")


def test_threads_are_a_number(engine: Path) -> None:
    with pytest.raises(UserError, match="threads=0 is not a thread count"):
        tensorrt_llm.load(engine, 0)


def test_the_mode_of_the_kv_cache_chooses_the_runtime(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.running(monkeypatch, tmp_path, declared())
    assert type(backends.load(engine)).__name__ == "SessionEngine"
    paged = tensorrt_llm.settle(declared("0.13.0", "paged"))
    other = runtime.engine_directory(tmp_path / "paged", paged)
    runtime.running(monkeypatch, tmp_path / "2", paged)
    assert type(backends.load(other)).__name__ == "CppEngine"
    assert EngineSpec.load(other).kv_cache.mode == "paged"
