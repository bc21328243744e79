"""NVIDIA's TensorRT-LLM: checkpoints packed on any machine, engines built and run on the device they are for.

Importing this imports no heavy library. What is proven where: the packed weights by comparison with upstream's own
converter's, the build commands against the options that its versions take, the runtimes against stand-ins that check
what they are given. No engine was ever built or run on a GPU by this project.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.backends.tensorrt_llm import families, machine, versions
from whisper_factory.backends.tensorrt_llm.footprint import footprint
from whisper_factory.backends.tensorrt_llm.kit import write_kit
from whisper_factory.backends.tensorrt_llm.limits import check, kv_modes, notes, release_of, settle, target_of
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision
from whisper_factory.errors import UserError
from whisper_factory.progress import Progress, silent

if TYPE_CHECKING:
    from whisper_factory.backends.engines import GeneratingEngine
    from whisper_factory.whisper.readers import Weights

__all__ = [
    "COMPUTED", "EVIDENCE", "LIBRARIES", "UNPROMISED", "VERSION", "build", "can_build", "check", "check_installed",
    "checkpoint_precision", "footprint", "kv_modes", "load", "needs_kit", "notes", "pack", "pack_params", "pack_tools",
    "read", "runs_here", "settle", "stand_in", "stand_in_spec", "tools", "write_kit",
]  # fmt: skip

VERSION = 1
LIBRARIES = ("numpy", "torch", "tensorrt_llm")
COMPUTED: dict[str, str] = {}
UNPROMISED = ("*.engine",)
EVIDENCE = "preflight"


def tools() -> dict[str, str]:
    """The version of what builds the engine.

    Raises:
        EnvironmentFault: it is not installed.
    """
    return {"tensorrt_llm": machine.toolkit()}


def can_build(spec: EngineSpec) -> bool:
    """Whether TensorRT-LLM is installed here."""
    return versions.installed() is not None


def runs_here(spec: EngineSpec) -> bool:
    """Where it is built, it runs."""
    return can_build(spec)


def needs_kit(spec: EngineSpec) -> bool:
    """Always: the machine that packs is seldom the one that runs."""
    return True


def check_installed(spec: EngineSpec) -> None:
    """Raise UserError if TensorRT-LLM is installed in another version than the one the engine is for."""
    installed, asked = versions.installed(), release_of(spec).text
    if installed is not None and not versions.same(installed, asked):
        raise UserError(f"trtllm_version={asked}, but TensorRT-LLM {installed} is installed here, and would not build "
                        f"or run it; ask for trtllm_version={installed}, or install {asked}")


def pack_tools() -> dict[str, str]:
    """Versions of what shapes the packed bytes."""
    return {"numpy": metadata.version("numpy")}


def checkpoint_precision(spec: EngineSpec) -> Precision:
    """Of the canonical checkpoint: the engine's, or float16 where trtllm-build has to quantise."""
    return families.checkpoint_precision(spec.precision, target_of(spec).compute_capability, release_of(spec))


def pack_params(spec: EngineSpec) -> dict[str, Any]:
    """What decides the packed bytes, beside the weights."""
    return {"version": release_of(spec).text, "compute_capability": target_of(spec).compute_capability,
            "precision": spec.precision.to_dict()}


def pack(checkpoint: Path, spec: EngineSpec, out: Path, say: Callable[[str], None],
         progress: Progress = silent) -> None:
    """Write encoder/, decoder/ and stamp.json as TensorRT-LLM's version wants them, and the vocabulary.

    Args:
        checkpoint: a canonical checkpoint directory, of `checkpoint_precision`.
        out: an empty directory.
        progress: of the bytes.

    Raises:
        UserError: the checkpoint is of another precision, or does not fit the layout.
    """
    from whisper_factory.backends.tensorrt_llm import packing
    from whisper_factory.backends.tensorrt_llm.building import VOCABULARY

    packing.write(checkpoint, out, release_of(spec), target_of(spec).compute_capability, spec.precision, say,
                  progress)
    shutil.copyfile(checkpoint / VOCABULARY, out / VOCABULARY)


def read(packed: Path) -> Weights:
    """The weights of what `pack` wrote, as the engine multiplies by them."""
    from whisper_factory.backends.tensorrt_llm import unpack

    return unpack.read(packed)


def build(source: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], failures: Path,
          progress: Progress = silent, caches: Path | None = None) -> None:
    """Build an engine on the device: encoder/ and decoder/ as trtllm-build writes them, their logs, build.json (time
    and memory of each), stamp.json, the vocabulary, and engine.json last.

    Args:
        source: what `pack` wrote.
        out: an empty directory.
        failures: gets the log of a command that failed, and reproduce.sh.
        progress: not used: what trtllm-build prints is passed on.
        caches: not used: trtllm-build's timing cache goes with its run.

    Raises:
        UserError: the checkpoint is for another TensorRT-LLM or GPU than those at hand.
        EnvironmentFault: TensorRT-LLM or the GPU is missing, or trtllm-build failed.
    """
    from whisper_factory.backends.tensorrt_llm.building import build_engine

    build_engine(source, spec, out, say, failures)


def stand_in_spec(spec: EngineSpec) -> EngineSpec:
    """The embedded engine that hears through the packed weights on a CPU, in the window that the device will run.

    Args:
        spec: settled or not.
    """
    return replace(
        settle(spec), backend="onnxruntime", precision=Precision("float32", 0, "float32"),
        kv_cache=KVCache("contiguous", spec.kv_cache.tokens_per_page), target=None,
    )


def stand_in(packed: Path, spec: EngineSpec, scratch: Path, say: Callable[[str], None], failures: Path,
             progress: Progress = silent) -> Path:
    """Build that engine in `scratch`, and return its directory."""
    from whisper_factory.backends.tensorrt_llm import preflight

    return preflight.build(packed, spec, scratch, say, failures, progress)


def load(engine: Path, threads: int | None = None) -> GeneratingEngine:
    """Load an engine directory: a contiguous KV cache runs in TensorRT-LLM's Python session, a paged one in its C++
    runtime.

    Args:
        threads: of the CPU; the work is the GPU's.

    Raises:
        UserError: not an engine of this backend, one that is not built yet, or one for another version or GPU.
        EnvironmentFault: TensorRT-LLM is not installed, or there is no GPU.
    """
    from whisper_factory.backends.tensorrt_llm.loading import load_engine

    return load_engine(engine, threads)
