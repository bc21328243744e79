"""Loading an engine: what can be refused is refused before TensorRT is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.backends.cuda import cudart
from whisper_factory.backends.tensorrt import flavours
from whisper_factory.backends.tensorrt.building import FORMAT
from whisper_factory.backends.tensorrt.files import REPORT, STAGES
from whisper_factory.backends.tensorrt.flavours import FLAVOURS, RTX, Flavour
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    from whisper_factory.backends.tensorrt.session import TensorRTEngine


def load_engine(directory: Path, threads: int | None) -> TensorRTEngine:
    """See `whisper_factory.backends.tensorrt.load`."""
    if threads is not None and threads < 1:
        raise UserError(f"threads={threads} is not a thread count; choices: 1 or more")
    spec = EngineSpec.load(directory)
    if not (directory / REPORT).is_file() and (directory / f"{STAGES[0]}.onnx").is_file():
        from whisper_factory.backends.tensorrt import graph_engine

        return graph_engine.load(directory, threads)
    flavour = check_fits(directory)
    from whisper_factory.backends.cuda.cudart import Cuda
    from whisper_factory.backends.tensorrt.executor import TensorRTExecutor
    from whisper_factory.backends.tensorrt.session import TensorRTEngine

    device = Cuda()
    return TensorRTEngine(spec, device, TensorRTExecutor(directory, flavour, device), threads or 1)


def read_report(directory: Path) -> dict[str, Any]:
    """build.json of an engine directory.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = directory / REPORT
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if report["format"] != FORMAT or report["flavour"] not in FLAVOURS:
            raise UserError(f"{path}: format {report['format']}, this version reads {FORMAT}; build the engine again")
        _ = report["version"], report["compute_capability"], report["device"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{directory}' holds no built engine ({REPORT}: {type(error).__name__}: {error}); build it "
                        f"again") from error
    return report


def check_fits(directory: Path) -> Flavour:
    """Refuse a directory that holds no built engine, or one that this machine cannot run; the engine's flavour."""
    report = read_report(directory)
    missing = [name for stage in STAGES if not (directory / (name := f"{stage}.engine")).is_file()]
    if missing:
        raise UserError(f"'{directory}' holds no built engine ({missing[0]} is missing); build it again")
    flavour, version, capability = FLAVOURS[report["flavour"]], report["version"], report["compute_capability"]
    built = f"this engine was built with {flavour.title} {version} for compute capability {capability}"
    here = flavours.installed(flavour)
    if here is None:
        other = next((f"{kind.title} {found}" for kind in FLAVOURS.values() if (found := flavours.installed(kind))),
                     "no TensorRT")
        raise EnvironmentFault(f"{built}, installed is {other}; install {flavour.title} {version} ({flavour.install})")
    if here != version:
        raise UserError(f"{built}, installed is {flavour.title} {here}, which cannot load it; install {version}, or "
                        f"build it again")
    found = cudart.compute_capability()
    if found is None:
        raise EnvironmentFault(f"{built} ({report['device']}), and CUDA finds no GPU here; run it there")
    if found != capability:
        why = f"; no engine of {flavour.title} runs on {found}" if _unserved(flavour, found) else ""
        raise UserError(f"{built}, this GPU has {found}{why}; build it for this GPU, with its device=... (or "
                        f"device.compute_capability={found})")
    return flavour


def _unserved(flavour: Flavour, capability: str) -> bool:
    return flavour is RTX and capability not in flavours.RTX_SERVES
