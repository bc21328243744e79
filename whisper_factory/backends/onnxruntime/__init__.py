"""ONNX Runtime on the CPU: the embedded default backend. Importing this imports no heavy library."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory.backends.onnxruntime.footprint import footprint
from whisper_factory.backends.onnxruntime.limits import check
from whisper_factory.engine_spec import KV_MODES, EngineSpec, KVMode, Precision
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.progress import Progress, silent

if TYPE_CHECKING:
    from whisper_factory.backends.onnxruntime.session import OnnxRuntimeEngine
    from whisper_factory.whisper.checkpoint import Checkpoint

__all__ = ["COMPUTED", "LIBRARIES", "UNPROMISED", "VERSION", "build", "build_from", "check", "checkpoint_precision",
           "footprint", "kv_modes", "load", "notes", "settle", "tools"]

VERSION = 9
LIBRARIES = ("numpy", "onnxruntime")
COMPUTED = {"end_anchor.bin": "<f4"}
UNPROMISED: tuple[str, ...] = ()
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # two packages that install one module


def _installed(package: str) -> str | None:
    from importlib import metadata  # here: running an engine need not wait for it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def tools() -> dict[str, str]:
    """Versions of what shapes the bytes: onnx writes the graphs, numpy packs the weights, and the runtime
    computes the end anchor.

    Raises:
        EnvironmentFault: one of them is not installed.
    """
    found = {name: version for name in ("numpy", "onnx", *RUNTIMES) if (version := _installed(name))}
    runtimes = [name for name in RUNTIMES if name in found]
    missing = [name for name in ("numpy", "onnx") if name not in found]
    if not runtimes:
        missing.append("onnxruntime")
    if missing:
        raise EnvironmentFault(f"backend 'onnxruntime' needs {', '.join(missing)}, not installed here; "
                               f"pip install 'whisper-factory[onnxruntime]'")
    return found


def notes(spec: EngineSpec) -> list[str]:
    """Nothing that the plan does not show."""
    return []


def kv_modes(spec: EngineSpec) -> tuple[KVMode, ...]:
    """Both."""
    return KV_MODES


def settle(spec: EngineSpec) -> EngineSpec:
    """As it is."""
    return spec


def checkpoint_precision(spec: EngineSpec) -> Precision:
    """The engine's own."""
    return spec.precision


def build(
    source: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], failures: Path | None = None,
    progress: Progress = silent, caches: Path | None = None,
) -> None:
    """Build an engine directory: encoder.onnx, decoder.onnx, their weights, end_anchor.bin, the vocabulary
    and engine.json.

    Args:
        source: a canonical checkpoint directory.
        spec: what to build.
        out: an empty directory.
        say: takes one line of progress at a time.
        failures: not used: no external command runs.
        progress: of the layers.
        caches: not used: nothing is worth keeping.

    Raises:
        UserError: the combination cannot be built, or the checkpoint is another model's.
        EnvironmentFault: onnx or onnxruntime is not installed.
    """
    check(spec)
    tools()
    from whisper_factory.backends.onnxruntime.files import VOCABULARY
    from whisper_factory.whisper.checkpoint import Checkpoint

    build_from(Checkpoint.open(source), source / VOCABULARY, spec, out, say, progress)


def build_from(checkpoint: Checkpoint, vocabulary: Path, spec: EngineSpec, out: Path, say: Callable[[str], None],
               progress: Progress = silent, apart: bool = False) -> None:
    """As `build`, of a checkpoint that has no directory.

    Args:
        vocabulary: the rank file.
        apart: of floats, for an engine that is not kept: an encoder that computes the same in a little less time, and
            has other bytes (`pack.ApartDialect`).
    """
    check(spec)
    tools()
    from whisper_factory.backends.onnxruntime.assemble import build_engine

    build_engine(checkpoint, vocabulary, spec, out, say, progress, apart)


def load(engine: Path, threads: int | None = None) -> OnnxRuntimeEngine:
    """Load an engine directory.

    Args:
        engine: the directory that `build` filled.
        threads: threads of each operator; None: one a physical core that this process may use.

    Raises:
        UserError: not an engine of this backend, or a file of it is missing or damaged.
        EnvironmentFault: onnxruntime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise EnvironmentFault("backend 'onnxruntime' needs onnxruntime, not installed here; "
                               "pip install 'whisper-factory[onnxruntime]'")
    if threads is not None and threads < 1:
        raise UserError(f"threads={threads} is not a thread count; choices: 1 or more")
    from whisper_factory.backends.onnxruntime.session import OnnxRuntimeEngine

    return OnnxRuntimeEngine(engine, threads)
