"""Building on a device that is none: a stand-in trtllm-build, and every way it can go wrong."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import processes
from tests.backends.tensorrt_llm import making
from tests.backends.tensorrt_llm.making import declared, packed
from tests.tiny_model import tiny_weights
from whisper_factory.backends import tensorrt_llm
from whisper_factory.backends.tensorrt_llm import building, commands, machine
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError

MARK = "a folder"  # with a space, as users have them


class Workplace:
    """Where a build runs: the packed checkpoint, the empty output, the place for evidence, what was said."""

    def __init__(self, directory: Path, spec: EngineSpec) -> None:
        self.spec, self.directory = spec, directory
        self.out, self.failures = directory / MARK / "out", directory / MARK / "failed"
        self.packed = packed(spec, directory / MARK)
        self.out.mkdir()
        self.said: list[str] = []

    def build(self) -> None:
        tensorrt_llm.build(self.packed, self.spec, self.out, self.said.append, self.failures)

    def refusal(self, kind: type[Exception]) -> str:
        with pytest.raises(kind) as refused:
            self.build()
        assert "\n" not in str(refused.value)
        return str(refused.value)


def test_an_engine_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making.device(monkeypatch, tmp_path, body="time.sleep(0.2)")
    at = Workplace(tmp_path, declared())
    at.build()
    assert list(making.every_file(at.out)) == [
        "build.json", "decoder.log", "decoder/config.json", "decoder/rank0.engine", "encoder.log",
        "encoder/config.json", "encoder/rank0.engine", "engine.json", "stamp.json", "vocabulary.tiktoken"]
    assert EngineSpec.load(at.out) == at.spec
    assert making.calls(tmp_path) == [
        commands.words(options)[1:]
        for options in commands.build_commands(at.spec, str(at.packed), str(at.out)).values()]
    assert (at.out / "encoder.log").read_text(encoding="utf-8") == "[TRT-LLM] [I] building encoder\n"
    assert "decoder: [TRT-LLM] [I] building decoder" in at.said
    assert not at.failures.exists()


def test_what_building_cost_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = processes.until_seen(monkeypatch, tmp_path, 50e6)
    making.device(monkeypatch, tmp_path, body=f"block = b'x' * 50_000_000\n{seen}time.sleep(0.1)")
    at = Workplace(tmp_path, declared())
    before = time.monotonic()
    at.build()
    took = time.monotonic() - before
    report: dict[str, Any] = json.loads((at.out / "build.json").read_text(encoding="utf-8"))
    assert report["versions"]["tensorrt_llm"] == "0.12.0"
    for stage, options in commands.build_commands(at.spec, "checkpoint", "engine").items():
        assert report["stages"][stage]["command"] == commands.words(options)
        assert 0.1 <= report["stages"][stage]["seconds"] < took
        assert 50e6 < report["stages"][stage]["peak_rss_bytes"] < 150e6


@pytest.mark.parametrize(("spec", "version", "capability", "said"), [
    (declared("0.12.0"), "0.17.0", "8.7",
     r"for TensorRT-LLM 0\.12\.0 \(generation G1\), installed is 0\.17\.0 \(generation G2\).*trtllm_version=0\.17\.0"),
    (declared("1.0.0"), "0.12.0", "8.7", r"1\.0\.0 \(generation G3\), installed is 0\.12\.0 \(generation G1\)"),
    (declared("0.12.0"), "0.12.1", "8.7", r"is for TensorRT-LLM 0\.12\.0 .*, installed is 0\.12\.1"),
    (declared("0.12.0"), "0.12.0", "9.0",
     r"for compute capability 8\.7 \(packed layout sm80\), this GPU has 9\.0 \(packed layout sm90\)"),
    (declared("0.12.0"), "0.12.0", "8.9", r"8\.7 \(packed layout sm80\), this GPU has 8\.9 \(packed layout sm80\)"),
    (declared("0.16.0", capability="9.0"), "0.16.0", "10.0",
     r"9\.0 \(packed layout none\), this GPU has 10\.0 \(packed layout none\); convert again with the device="),
])
def test_a_checkpoint_for_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: EngineSpec, version: str, capability: str, said: str
) -> None:
    making.device(monkeypatch, tmp_path, version, capability)
    at = Workplace(tmp_path, spec)
    assert re.search(said, at.refusal(UserError))
    assert making.calls(tmp_path) == []
    assert list(at.out.iterdir()) == []


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making.device(monkeypatch, tmp_path)
    at = Workplace(tmp_path, declared())
    with (at.packed / "decoder" / "rank0.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    assert "rank0.safetensors' is not the file that stamp.json was written for" in at.refusal(UserError)
    assert making.calls(tmp_path) == []


def test_nothing_to_build_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Workplace(tmp_path, declared())
    assert not tensorrt_llm.can_build(at.spec)
    tensorrt_llm.check_installed(at.spec)
    with pytest.raises(EnvironmentFault, match="needs tensorrt_llm, not installed here"):
        tensorrt_llm.tools()
    assert "needs tensorrt_llm" in at.refusal(EnvironmentFault)
    making.device(monkeypatch, tmp_path, capability=None)
    assert tensorrt_llm.can_build(at.spec)
    assert tensorrt_llm.tools() == {"tensorrt_llm": "0.12.0"}


def test_what_is_installed_must_be_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making.device(monkeypatch, tmp_path, "0.12.0+jetson")
    tensorrt_llm.check_installed(declared("0.12"))
    with pytest.raises(UserError, match=r"trtllm_version=0\.17\.0, but TensorRT-LLM 0\.12\.0 is installed"):
        tensorrt_llm.check_installed(declared("0.17.0"))


def evidence(at: Workplace, stage: str) -> str:
    """The build fails; what the error says, after checking that it leads to a log and to a script."""
    said = at.refusal(EnvironmentFault)
    assert said.startswith(f"{stage}: ")
    log, script = at.failures / f"{stage}.log", at.failures / "reproduce.sh"
    assert str(log) in said
    assert str(script) in said
    assert log.is_file()
    assert script.stat().st_mode & stat.S_IXUSR
    assert not (at.out / "engine.json").exists()
    return said


def test_a_failing_builder_can_be_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making.device(monkeypatch, tmp_path,
                  body="if stage == 'decoder':\n    print('RuntimeError: Required but not provided')\n    sys.exit(7)")
    at = Workplace(tmp_path, declared())
    said = evidence(at, "decoder")
    assert "trtllm-build failed (exit code 7): [TRT-LLM] [I] building decoder | RuntimeError: Required" in said
    log = (at.failures / "decoder.log").read_text(encoding="utf-8")
    again = subprocess.run([at.failures / "reproduce.sh"], cwd="/", text=True, capture_output=True, check=False)
    assert (again.returncode, again.stdout) == (7, log)
    first, second = making.calls(tmp_path)[-2:]
    assert first[4:] == second[4:]  # but for where it writes
    assert second[3] == f"{at.failures}/reproduced/decoder"


@pytest.mark.parametrize(("body", "ending"), [
    ("print('Error Code 10: Internal Error (Could not find any implementation for node X.)')\nsys.exit(1)",
     "exit code 1"),
    ("print('torch.OutOfMemoryError: CUDA out of memory.')\nsys.exit(1)", "exit code 1"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
])
def test_memory_is_named_as_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, ending: str
) -> None:
    making.device(monkeypatch, tmp_path, body=body)
    said = evidence(Workplace(tmp_path, declared()), "encoder")
    assert re.search(rf"ran out of memory \({ending}\), with \d+ MB of the system's memory and 123 MB of the GPU's "
                     "free", said)
    assert "profile.max_batch_size" in said


def test_other_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making.device(monkeypatch, tmp_path, body="os.kill(os.getpid(), signal.SIGSEGV)")
    assert "failed (killed by SIGSEGV)" in evidence(Workplace(tmp_path / "1", declared()), "encoder")
    making.device(monkeypatch, tmp_path / "2", body="sys.exit(0)")
    assert "ended well but wrote no rank0.engine and no config.json" in evidence(
        Workplace(tmp_path / "2", declared()), "encoder")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "trtllm-build cannot be started (trtllm-build: No such file or directory); activate the environment" in (
        evidence(Workplace(tmp_path / "3", declared()), "encoder"))


def test_free_memory_where_nothing_can_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert machine.free_memory() == "an unknown amount"


@pytest.mark.parametrize(("said", "found"), [("8.7\n", "8.7"), ("8.9\n8.9\n", "8.9"), ("[N/A]\n", None)])
def test_nvidia_smi_is_asked_where_torch_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.compute_capability() is None
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable} -S\nimport sys\nassert '--query-gpu=compute_cap' in sys.argv\n"
                       f"print({said!r}, end='')\n")
    program.chmod(0o755)
    assert machine.compute_capability() == found


def test_where_nobody_sees_a_gpu_trtllm_build_has_the_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Workplace(tmp_path, declared())
    making.device(monkeypatch, tmp_path, capability=None)
    said: list[str] = []
    monkeypatch.setattr(machine, "compute_capability", lambda: None)
    building.check_machine(at.packed, "0.12.0", said.append)
    assert said == ["warning: neither torch nor nvidia-smi sees a GPU here: that it is of compute capability 8.7 is "
                    "not checked"]


def test_what_was_packed_can_be_read(tmp_path: Path) -> None:
    """As the weights that the engine multiplies by, for the preflight."""
    spec = declared(precision="float16")
    found = tensorrt_llm.read(packed(spec, tmp_path))
    original = tiny_weights()
    assert found.dimensions == spec.dimensions
    np.testing.assert_array_equal(found.tensors["decoder.token_embedding.weight"],
                                  original.tensors["decoder.token_embedding.weight"])


def test_what_decides_the_packed_bytes() -> None:
    """And nothing else: profiles and KV-cache modes share a packed checkpoint."""
    params = tensorrt_llm.pack_params(declared("0.12"))
    assert params == {"version": "0.12.0", "compute_capability": "8.7",
                      "precision": {"name": "int8", "bits": 8, "dtype": "float16"}}
    assert tensorrt_llm.pack_params(declared("0.12.0", "paged", profile={"max_batch_size": 9})) == params
    assert set(tensorrt_llm.pack_tools()) == {"numpy"}
