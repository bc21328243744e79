"""A stand-in for the module tensorrt_llm, which records what it is given and answers fixed tokens (torch is real).

What it takes is what the Whisper example of TensorRT-LLM's repository gives, version by version; it hears nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.backends.tensorrt_llm.making import install
from whisper_factory.backends.tensorrt_llm import cpp, limits, session, stamp
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

WIDTH = 128  # of the tiny model
SILENT = 5000.0  # added to the states of a window in which all frames are the same

TRT = {"float16": "trt.float16", "int32": "trt.int32"}
TORCH = {"trt.float16": torch.float16, "trt.int32": torch.int32}


@dataclass(frozen=True)
class TensorInfo:
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass
class Record:
    """What the stand-in was given."""

    encoded: list[dict[str, torch.Tensor]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    setups: list[dict[str, Any]] = field(default_factory=list)
    decoded: list[dict[str, Any]] = field(default_factory=list)
    runner: dict[str, Any] = field(default_factory=dict)
    generated: list[dict[str, Any]] = field(default_factory=list)
    log_level: str | None = None
    answer: list[int] = field(default_factory=lambda: [11, 12, 13])
    runs: bool = True  # whether the encoder's engine does


class Session:
    """A TensorRT engine of the encoder, by the names that its version gives its tensors."""

    record: Record
    inputs: tuple[str, ...]
    output: str

    def __init__(self) -> None:
        names = [*self.inputs, self.output]
        self.engine = SimpleNamespace(num_io_tensors=len(names), get_tensor_name=names.__getitem__)
        self.shapes: dict[str, tuple[int, ...]] = {}

    @classmethod
    def from_serialized_engine(cls, engine: bytes) -> Session:
        assert engine == b"encoder: a stand-in, no engine"
        return cls()

    def infer_shapes(self, infos: list[TensorInfo]) -> list[TensorInfo]:
        assert [info.name for info in infos] == list(self.inputs)
        batch, mels, frames = infos[0].shape
        assert (infos[0].dtype, mels) == ("trt.float16", 80)
        assert (infos[1].dtype, infos[1].shape) == ("trt.int32", (batch,))
        if "position_ids" in self.inputs:
            assert (infos[2].dtype, infos[2].shape) == ("trt.int32", (batch, frames // 2))
        else:
            assert frames == WINDOW_FRAMES, "Static dimension mismatch"
        self.shapes = {info.name: info.shape for info in infos}
        return [TensorInfo(self.output, "trt.float16", (batch, frames // 2, WIDTH))]

    def run(self, inputs: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor], stream: int) -> bool:
        assert stream == 7
        for name, tensor in inputs.items():
            assert tuple(tensor.shape) == self.shapes[name]
            assert tensor.is_contiguous()
        self.record.encoded.append(inputs)
        mel, states = inputs[self.inputs[0]], outputs[self.output]
        assert states.dtype == torch.float16
        states[:] = torch.arange(states.shape[1], dtype=torch.float16)[None, :, None]
        states += torch.tensor([SILENT * bool((window == window[0, 0]).all()) for window in mel])[:, None, None]
        return self.record.runs


def rows(record: Record, prompts: torch.Tensor, beams: int, room: int, end: int) -> torch.Tensor:
    """Output as the runtimes shape it: prompt, answer, padding; the second beam on is another answer."""
    found = torch.full((len(prompts), beams, prompts.shape[1] + room), end, dtype=torch.int32)
    found[:, :, : prompts.shape[1]] = prompts[:, None, :]
    answer = record.answer[:room]
    found[:, 0, prompts.shape[1]:][:, : len(answer)] = torch.tensor(answer, dtype=torch.int32)
    found[:, 1:, prompts.shape[1]:] = 99
    return found


def module(record: Record, spec: EngineSpec) -> dict[str, ModuleType]:
    """The modules of a version, by name."""
    release = limits.release_of(spec)

    class GenerationSession:
        def __init__(self, config: Any, engine: bytes, mapping: Any, debug_mode: bool) -> None:
            assert engine == b"decoder: a stand-in, no engine"
            assert (mapping, debug_mode) == (("mapping", 1, 0), False)

        def setup(self, batch_size: int, max_context_length: int, max_new_tokens: int, beam_width: int,
                  encoder_max_input_length: int) -> None:
            record.setups.append({"batch": batch_size, "prompt": max_context_length, "new": max_new_tokens,
                                  "beams": beam_width, "positions": encoder_max_input_length})

        def decode(self, input_ids: torch.Tensor, context_lengths: torch.Tensor, sampling: Any,
                   **given: torch.Tensor) -> torch.Tensor:
            record.decoded.append({"prompts": input_ids, "lengths": context_lengths, "sampling": sampling, **given})
            setup = record.setups[-1]
            return rows(record, input_ids, setup["beams"], setup["new"], sampling["end_id"])

    class ModelRunnerCpp:
        @classmethod
        def from_dir(cls, **given: Any) -> ModelRunnerCpp:
            record.runner = given
            return cls()

        def generate(self, **given: Any) -> dict[str, torch.Tensor]:
            record.generated.append(given)
            return {"output_ids": rows(record, given["batch_input_ids"], given["num_beams"], given["max_new_tokens"],
                                       given["end_id"])}

    class Sessions(Session):
        pass

    def model_config(**given: Any) -> str:
        record.config = given
        return "config"

    def log_at(level: str) -> None:
        record.log_level = level

    Sessions.record = record
    Sessions.inputs = ("input_features", "input_lengths") if release.at_least(0, 13) else ("x", "input_lengths")
    Sessions.inputs += ("position_ids",) if release.at_least(0, 15) else ()
    Sessions.output = "encoder_output" if release.at_least(0, 13) else "output"
    contents: dict[str, dict[str, Any]] = {
        "tensorrt_llm": {"Mapping": lambda world, rank: ("mapping", world, rank),
                         "logger": SimpleNamespace(set_level=log_at)},
        "tensorrt_llm.runtime": {"ModelConfig": model_config, "SamplingConfig": dict,
                                 "GenerationSession": GenerationSession, "ModelRunnerCpp": ModelRunnerCpp},
        "tensorrt_llm.runtime.session": {"Session": Sessions, "TensorInfo": TensorInfo},
        "tensorrt_llm._utils": {"str_dtype_to_trt": TRT.__getitem__, "trt_dtype_to_torch": TORCH.__getitem__},
    }
    kinds = {"KVCacheType": SimpleNamespace(CONTINUOUS="continuous", PAGED="paged")}
    if release.major:
        contents |= {"tensorrt_llm.llmapi": {}, "tensorrt_llm.llmapi.kv_cache_type": kinds}
    elif release.at_least(0, 13):
        contents["tensorrt_llm.bindings"] = kinds
    made = {}
    for name, content in contents.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(content)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(made[parent], own, made[name])
    return made


def running(monkeypatch: pytest.MonkeyPatch, directory: Path, spec: EngineSpec, installed: str | None = None,
            capability: tuple[int, int] | None = None) -> Record:
    """Make this process believe that it can run engines, those of `spec` if nothing else is said."""
    assert spec.target is not None
    record = Record()
    monkeypatch.syspath_prepend(str(install(directory, installed or spec.target.version, None)))
    for name, content in module(record, spec).items():
        monkeypatch.setitem(sys.modules, name, content)
    monkeypatch.setitem(sys.modules, "torch", torch)  # not the one that `install` wrote
    here = capability or tuple(map(int, spec.target.compute_capability.split(".")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: here)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream",
                        lambda: SimpleNamespace(cuda_stream=7, synchronize=lambda: None))
    for place in (session, cpp):
        monkeypatch.setattr(place, "DEVICE", "cpu")
    return record


def engine_directory(directory: Path, spec: EngineSpec) -> Path:
    """An engine directory, as far as loading looks; its engines say what they are."""
    assert spec.target is not None
    for stage in ("encoder", "decoder"):
        (directory / stage).mkdir(parents=True)
        (directory / stage / "rank0.engine").write_bytes(f"{stage}: a stand-in, no engine".encode())
        (directory / stage / "config.json").write_text("{}", encoding="utf-8")
    files = {name: {"bytes": 0, "sha256": ""} for name in stamp.FILES}
    release = limits.release_of(spec)
    stamp.write_stamp(directory, {
        "generation": release.generation, "layout": "sm80", "version": release.text,
        "compute_capability": spec.target.compute_capability, "precision": spec.precision.name,
        "quant_algo": "W8A16", "packed_by": {}, "files": files})
    spec.save(directory)
    return directory
