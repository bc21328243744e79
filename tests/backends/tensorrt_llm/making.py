"""Engines to declare, packed checkpoints, and stand-ins for what only an NVIDIA machine has."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.tiny_model import tiny_dimensions, tiny_weights
from whisper_factory.backends import tensorrt_llm
from whisper_factory.backends.tensorrt_llm import versions
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision, Profile, Target
from whisper_factory.whisper.checkpoint import write_checkpoint
from whisper_factory.whisper.transcribe import VOCABULARY_FILE

RECORDED = tuple(json.loads(Path(versions.__file__).with_name("build_flags.json").read_text(encoding="utf-8")))
PRECISIONS = {"float16": Precision("float16", 0, "float16"), "int8": Precision("int8", 8, "float16"),
              "int4": Precision("int4", 4, "float16")}
PROFILE = Profile("test", 2, 3, 750, 64, "max", 50, 100)
TARGET = Target("jetson_orin_nano_8gb", "8.7", "0.12.0", False, 0.25, 0.5)


def declared(version: str = "0.12.0", kv_cache: Any = "contiguous", precision: str = "int8", capability: str = "8.7",
             multilingual: bool = False, profile: dict[str, Any] | None = None, **target: Any) -> EngineSpec:
    """An engine of the tiny model; `profile` and `target` override fields of PROFILE and TARGET."""
    return EngineSpec(
        "tiny" if multilingual else "tiny.en", "tensorrt_llm", tiny_dimensions(multilingual), PRECISIONS[precision],
        replace(PROFILE, **(profile or {})), KVCache(kv_cache, 64),
        replace(TARGET, version=version, compute_capability=capability, **target),
    )


def packed(spec: EngineSpec, directory: Path) -> Path:
    """A checkpoint of random weights as `pack` leaves it, its vocabulary a placeholder."""
    canonical, out = directory / "canonical", directory / "packed"
    out.mkdir(parents=True)
    write_checkpoint(canonical, spec.model, tensorrt_llm.checkpoint_precision(spec),
                     tiny_weights(multilingual=spec.dimensions.is_multilingual))
    (canonical / VOCABULARY_FILE).write_text("a vocabulary\n", encoding="utf-8")
    tensorrt_llm.pack(canonical, spec, out, lambda line: None)
    return out


def install(directory: Path, version: str | None, capability: str | None) -> Path:
    """A folder for PYTHONPATH with TensorRT-LLM's metadata and a torch that knows a GPU; None: it has none."""
    site = directory / "site"
    site.mkdir(parents=True)
    if version is not None:
        about = site / f"tensorrt_llm-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: {version}\n",
                                        encoding="utf-8")
    known = f"return {tuple(map(int, capability.split('.')))}" if capability else "raise RuntimeError('no GPU')"
    (site / "torch.py").write_text(
        "class cuda:\n"
        f"    @staticmethod\n    def is_available():\n        return {capability is not None}\n"
        f"    @staticmethod\n    def get_device_capability():\n        {known}\n"
        f"    @staticmethod\n    def mem_get_info():\n        return 123_000_000, 8_000_000_000\n",
        encoding="utf-8")
    return site


def builder(directory: Path, body: str = "") -> Path:
    """A folder for PATH with a stand-in trtllm-build: it notes how it was called, then runs `body`, then writes what
    stands for an engine (nothing that TensorRT could load)."""
    folder = directory / "bin"
    folder.mkdir(parents=True)
    script = folder / "trtllm-build"
    script.write_text(
        f"#!{sys.executable} -S\n"
        "import json, os, pathlib, signal, sys, time\n"
        "given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))\n"
        f"with open({str(directory / 'calls.jsonl')!r}, 'a') as calls:\n"
        "    calls.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "stage = given['--checkpoint_dir'].rpartition('/')[2]\n"
        "assert pathlib.Path(given['--checkpoint_dir'], 'rank0.safetensors').is_file()\n"
        "print('[TRT-LLM] [I] building', stage, flush=True)\n"
        f"{body}\n"
        "out = pathlib.Path(given['--output_dir'])\n"
        "out.mkdir(parents=True, exist_ok=True)\n"
        "out.joinpath('rank0.engine').write_bytes(b'a stand-in, no engine')\n"
        "out.joinpath('config.json').write_text('{}')\n"
        "pathlib.Path('model.cache').write_text('timing')\n", encoding="utf-8")
    script.chmod(0o755)
    return folder


def calls(directory: Path) -> list[list[str]]:
    """How the stand-in of `builder` was called."""
    path = directory / "calls.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def device(monkeypatch: pytest.MonkeyPatch, directory: Path, version: str | None = "0.12.0",
           capability: str | None = "8.7", body: str = "") -> None:
    """Make this process believe that it runs on a device with a toolkit and a GPU."""
    site = install(directory, version, capability)
    monkeypatch.syspath_prepend(str(site))
    torch = ModuleType("torch")
    exec((site / "torch.py").read_text(encoding="utf-8"), torch.__dict__)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setenv("PATH", f"{builder(directory, body)}:/usr/bin:/bin")


def every_file(directory: Path) -> Iterator[str]:
    """Paths of all files below a directory, relative to it."""
    return iter(sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()))
