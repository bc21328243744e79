"""NVIDIA's TensorRT: plain ONNX graphs, compiled by TensorRT for RTX on any machine, or by the full one on its device.

Importing this imports no heavy library. What is proven where: the builds, by building, with TensorRT for RTX on a
machine without a GPU; the graphs, by running the very files that TensorRT is given on the CPU with ONNX Runtime; the
runtime, with stand-ins that check what they are given. No GPU has run an engine of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory import store
from whisper_factory.backends.tensorrt import flavours
from whisper_factory.backends.tensorrt.flavours import FLAVOURS, RTX
from whisper_factory.backends.tensorrt.footprint import footprint
from whisper_factory.backends.tensorrt.kit import write_kit
from whisper_factory.backends.tensorrt.limits import check, flavour_of, kv_modes, notes, settle, target_of
from whisper_factory.engine_spec import EngineSpec, Precision
from whisper_factory.errors import EnvironmentFault
from whisper_factory.progress import Progress, silent

if TYPE_CHECKING:
    from whisper_factory.backends.tensorrt.session import TensorRTEngine

__all__ = [
    "COMPUTED", "EVIDENCE", "LIBRARIES", "UNPROMISED", "VERSION", "build", "can_build", "check", "check_installed",
    "checkpoint_precision", "footprint", "kv_modes", "load", "needs_kit", "notes", "pack", "pack_params", "pack_tools",
    "runs_here", "settle", "stand_in", "stand_in_spec", "tools", "write_kit",
]  # fmt: skip

VERSION = 2
LIBRARIES = ("numpy", "onnxruntime")  # of the stand-in: what is measured on a GPU is not this process's memory
COMPUTED = {"end_anchor.bin": "<f2"}
UNPROMISED = ("*.engine", "*.log", "build.json")
EVIDENCE = "graph"
WRITERS = ("numpy", "onnx", "onnxruntime")  # what packs: the runtime computes the end anchor


def tools() -> dict[str, str]:
    """The versions of TensorRT that are installed, by flavour.

    Raises:
        EnvironmentFault: none is.
    """
    found = {f"tensorrt ({flavour.name})": version for flavour in FLAVOURS.values()
             if (version := flavours.installed(flavour))}
    if not found:
        raise EnvironmentFault(f"backend 'tensorrt' needs TensorRT, not installed here; {RTX.install}")
    return found


def can_build(spec: EngineSpec) -> bool:
    """Whether the engine can be built here: its flavour is installed, and for the full one, its GPU is here."""
    flavour = flavour_of(spec)
    return flavours.installed(flavour) is not None and (flavour is RTX or _gpu_is_here(spec))


def runs_here(spec: EngineSpec) -> bool:
    """Whether the engine can be run here: its flavour is installed, and its GPU is here."""
    return flavours.installed(flavour_of(spec)) is not None and _gpu_is_here(spec)


def _gpu_is_here(spec: EngineSpec) -> bool:
    from whisper_factory.backends.cuda import cudart

    return cudart.compute_capability() == target_of(spec).compute_capability


def needs_kit(spec: EngineSpec) -> bool:
    """Whether the engine is to be built elsewhere."""
    return not can_build(spec)


def check_installed(spec: EngineSpec) -> None:
    """Any version will do: the engine's is its builder's."""


def pack_tools() -> dict[str, str]:
    """Versions of what shapes the packed bytes.

    Raises:
        EnvironmentFault: one of them is not installed.
    """
    found, missing = {}, []
    for name in WRITERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise EnvironmentFault(f"backend 'tensorrt' needs {', '.join(missing)} to write its graphs, not installed "
                               f"here; pip install 'whisper-factory[tensorrt]'")
    return found


def checkpoint_precision(spec: EngineSpec) -> Precision:
    """The engine's own."""
    return spec.precision


def pack_params(spec: EngineSpec) -> dict[str, Any]:
    """What decides the graphs, beside the weights: the window and the batch do not."""
    return {"precision": spec.precision.to_dict(), "capacity": spec.max_tokens, "end_anchor": spec.profile.end_anchor}


def pack(checkpoint: Path, spec: EngineSpec, out: Path, say: Callable[[str], None],
         progress: Progress = silent) -> None:
    """Write encoder.onnx, decoder.onnx, their weights, end_anchor.bin and the vocabulary.

    Args:
        checkpoint: a canonical checkpoint directory.
        out: an empty directory.
        progress: of the layers.

    Raises:
        UserError: the checkpoint is another model's, or of another precision.
    """
    from whisper_factory.backends.tensorrt import packing

    packing.write(checkpoint, spec, out, say, progress)


def build(source: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], failures: Path,
          progress: Progress = silent, caches: Path | None = None) -> None:
    """Build an engine directory: encoder.engine and decoder.engine, their logs, build.json (what the builder told, and
    what the engine is for), the vocabulary, and engine.json last.

    Args:
        source: what `pack` wrote.
        out: an empty directory.
        failures: gets the log of a build that failed, the graph, and a script that compiles it again.
        progress: not used: a build says nothing of how far it is.
        caches: where the times of kernels are kept for the next build, for a flavour that measures them.

    Raises:
        UserError: the engine is for another GPU than the only one that could be built for here.
        EnvironmentFault: TensorRT or the GPU is missing, or the build failed.
    """
    check(spec)
    from whisper_factory.backends.tensorrt.building import build_engine

    build_engine(source, settle(spec), out, say, failures, caches)


def stand_in_spec(spec: EngineSpec) -> EngineSpec:
    """The engine itself: its graphs stand for it on a CPU."""
    return settle(spec)


def stand_in(packed: Path, spec: EngineSpec, scratch: Path, say: Callable[[str], None], failures: Path,
             progress: Progress = silent) -> Path:
    """A directory in `scratch` whose graphs, the very files that TensorRT is given, `load` runs on the CPU."""
    engine = scratch / "engine"
    engine.mkdir(parents=True)
    for file in packed.iterdir():
        if file.suffix in (".onnx", ".weights", ".bin", ".tiktoken"):
            store.link(file, engine / file.name)
    spec.save(engine)
    return engine


def load(engine: Path, threads: int | None = None) -> TensorRTEngine:
    """Load an engine directory; one that holds graphs and no engines is run on the CPU by ONNX Runtime.

    Args:
        threads: of the CPU; of no account where the work is a GPU's.

    Raises:
        UserError: not an engine of this backend, one for another version or GPU, or a file of it is missing.
        EnvironmentFault: TensorRT is not installed, or there is no GPU.
    """
    from whisper_factory.backends.tensorrt.loading import load_engine

    return load_engine(engine, threads)
