"""The build kit, and its build.sh run for real over a stand-in trtllm-build and a stand-in torch."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.tensorrt_llm import making
from tests.backends.tensorrt_llm.making import declared, packed
from whisper_factory.backends import tensorrt_llm
from whisper_factory.backends.tensorrt_llm import commands
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper.options import engine_directory


class Device:
    """A kit copied to a machine with a toolkit and a GPU."""

    def __init__(self, directory: Path, spec: EngineSpec, version: str | None, capability: str | None,
                 body: str) -> None:
        self.directory, self.kit = directory, directory / "a kit"
        self.kit.mkdir()
        tensorrt_llm.write_kit(spec, self.kit)
        packed(spec, directory).rename(self.kit / "checkpoint")
        for path in self.kit.rglob("*"):
            if path.is_file():  # as the store leaves files
                path.chmod(0o555 if os.access(path, os.X_OK) else 0o444)
        self.site = making.install(directory, version, capability)
        self.path = making.builder(directory, body)

    def build(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run build.sh from another directory."""
        known = {"PATH": f"{self.path}:/usr/bin:/bin", "PYTHONPATH": str(self.site), "PYTHON": sys.executable}
        return subprocess.run([self.kit / "build.sh"], cwd=self.directory, env=known | environment, text=True,
                              capture_output=True, check=False)

    def refusal(self, code: int = 2, **environment: str) -> str:
        """build.sh refuses with one line, and builds nothing."""
        done = self.build(**environment)
        assert done.returncode == code
        assert done.stdout == ""
        assert making.calls(self.directory) == []
        line, = done.stderr.splitlines()
        return line


@pytest.fixture
def device(tmp_path: Path):  # type: ignore[no-untyped-def]
    def make(version: str | None = "0.12.0", capability: str | None = "8.7", body: str = "",
             spec: EngineSpec | None = None) -> Device:
        return Device(tmp_path, spec or declared(), version, capability, body)

    return make


def test_build_sh_makes_an_engine(device) -> None:  # type: ignore[no-untyped-def]
    at = device()
    done = at.build()
    assert (done.returncode, done.stderr) == (0, "")
    assert making.calls(at.directory) == [
        commands.words(options)[1:] for options in commands.build_commands(declared(), "checkpoint", "engine").values()]
    engine = at.kit / "engine"
    assert list(making.every_file(engine)) == [
        "build.log", "decoder/config.json", "decoder/rank0.engine", "encoder/config.json", "encoder/rank0.engine",
        "engine.json", "stamp.json", "vocabulary.tiktoken"]
    assert engine_directory(at.kit) == engine
    assert EngineSpec.load(engine) == declared()
    for name in ("stamp.json", "vocabulary.tiktoken"):
        assert (engine / name).read_bytes() == (at.kit / "checkpoint" / name).read_bytes()
    log = (engine / "build.log").read_text(encoding="utf-8")
    assert re.search(r"building encoder\nbuilt the encoder in \d+ s\nbuilding the decoder", log)
    assert done.stdout.startswith(log)
    last = done.stdout.splitlines()[-1]
    assert shlex.split(last) == ["run", "it:", sys.executable, "-m", "whisper_factory.run", "--engine_dir",
                                 str(at.kit), "--input_file", "FILE.wav"]


def test_an_engine_that_is_there_is_not_overwritten(device) -> None:  # type: ignore[no-untyped-def]
    at = device()
    assert at.build().returncode == 0
    (at.directory / "calls.jsonl").unlink()
    assert "engine/ is there already" in at.refusal()


@pytest.mark.parametrize(("version", "capability", "said"), [
    ("0.17.0", "8.7", "is for TensorRT-LLM 0.12.0, installed is 0.17.0;.*trtllm_version=0.17.0"),
    (None, "8.7", "is for TensorRT-LLM 0.12.0, .* has none; install it, or set PYTHON"),
    ("0.12.0", "8.9", r"is for compute capability 8\.7, this GPU has 8\.9; make the kit again with the device="),
])
def test_another_machine_is_refused(device, version, capability, said) -> None:  # type: ignore[no-untyped-def]
    at = device(version, capability)
    line = at.refusal()
    assert re.match(f"error: this kit {said}", line)
    assert not (at.kit / "engine").exists()


def test_where_nobody_sees_a_gpu_it_warns_and_goes_on(device) -> None:  # type: ignore[no-untyped-def]
    done = device(capability=None).build()
    assert done.returncode == 0
    assert "warning: neither torch nor nvidia-smi sees a GPU here" in done.stderr


def test_a_local_version_is_the_same(device) -> None:  # type: ignore[no-untyped-def]
    assert device("0.12.0+jetson").build().returncode == 0


def test_missing_programs_are_named(device, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    at = device()
    assert "no 'python9' here; PYTHON=..." in at.refusal(PYTHON="python9")
    (at.path / "trtllm-build").unlink()
    assert "trtllm-build is not on PATH" in at.refusal()


def failure(at: Device) -> str:
    """build.sh fails: one last line on standard error, an unfinished engine that nobody takes for one."""
    done = at.build()
    assert done.returncode == 4
    line, = done.stderr.splitlines()
    assert not (at.kit / "engine" / "engine.json").exists()
    assert line.endswith(f"log: {at.kit}/engine/build.log")
    log = (at.kit / "engine" / "build.log").read_text(encoding="utf-8")
    assert done.stdout == log
    return line


def test_a_failing_builder(device) -> None:  # type: ignore[no-untyped-def]
    at = device(body="if stage == 'decoder':\n    print('Required but not provided tensors')\n    sys.exit(3)")
    assert failure(at).startswith(
        "error: decoder: failed (its last line: Required but not provided tensors), exit code 3; log: ")
    assert len(making.calls(at.directory)) == 2
    making.builder(at.directory / "mended").joinpath("trtllm-build").replace(at.path / "trtllm-build")
    assert at.build().returncode == 0  # what was left behind is built anew


@pytest.mark.parametrize("body", [
    "print('Error Code 10: Could not find any implementation for node {ForeignNode[...]}.')\nsys.exit(1)",
    "print('[TensorRT] OutOfMemory (no further information)')\nsys.exit(1)",
    "os.kill(os.getpid(), signal.SIGKILL)",
])
def test_memory_is_named_as_memory(device, body: str) -> None:  # type: ignore[no-untyped-def]
    line = failure(device(body=body))
    assert re.match(r"error: encoder: ran out of memory \(\d+ MB of the system's memory are free now, 123 MB of the "
                    r"GPU's\); stop what else uses memory, .*; exit code (1|137); ", line)


def test_a_builder_that_writes_nothing(device) -> None:  # type: ignore[no-untyped-def]
    assert "ended well but wrote no rank0.engine), exit code 1; " in failure(device(body="sys.exit(0)"))


def test_the_commands_can_be_read_and_copied(tmp_path: Path) -> None:
    """Plain options and values: no variable, array, substitution or redirection in them."""
    spec = declared("0.17.0", "paged", allow_unanchored=True)
    tensorrt_llm.write_kit(spec, tmp_path)
    text = (tmp_path / "build.sh").read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    found = re.findall(r"^trtllm-build \\\n(?:    --\w+ \S+ \\\n)*    --\w+ \S+$", text, re.MULTILINE)
    assert [shlex.split(command.replace("\\\n", "")) for command in found] == [
        commands.words(options) for options in commands.build_commands(spec, "checkpoint", "engine").values()]
    assert not any(sign in command for command in found for sign in "$(){}<>|&;`'\"")


def test_the_rest_of_the_kit(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for out in (first, second):
        out.mkdir()
        tensorrt_llm.write_kit(declared(), out)
    assert list(making.every_file(first)) == ["build.sh", "requirements.txt", "runtime/engine.json"]
    for name in making.every_file(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert EngineSpec.load(first / "runtime") == declared()
    requirements = (first / "requirements.txt").read_text(encoding="utf-8")
    assert "\ntensorrt_llm==0.12.0\n" in requirements
    assert "Jetson" in requirements
    target = declared().target
    assert target is not None
    elsewhere = replace(declared(), target=replace(target, device="l4\n$(touch x)", compute_capability="8.9"))
    tensorrt_llm.write_kit(elsewhere, tmp_path / "2" / "runtime")
    assert "for l4 $(touch x) from" in (tmp_path / "2" / "runtime" / "build.sh").read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", tmp_path / "2" / "runtime" / "build.sh"], check=False).returncode == 0
