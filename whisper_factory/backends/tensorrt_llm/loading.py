"""Loading an engine: what can be refused is refused before TensorRT-LLM is imported."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.backends.tensorrt_llm import machine, versions
from whisper_factory.backends.tensorrt_llm.building import ENGINE_FILES
from whisper_factory.backends.tensorrt_llm.commands import STAGES
from whisper_factory.backends.tensorrt_llm.limits import target_of
from whisper_factory.backends.tensorrt_llm.stamp import read_stamp
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    from whisper_factory.backends.engines import GeneratingEngine


def load_engine(directory: Path, threads: int | None) -> GeneratingEngine:
    """See `whisper_factory.backends.tensorrt_llm.load`."""
    if threads is not None and threads < 1:
        raise UserError(f"threads={threads} is not a thread count; choices: 1 or more")
    spec = EngineSpec.load(directory)
    check_fits(directory, spec)
    library = import_library()
    if spec.kv_cache.mode == "paged":
        from whisper_factory.backends.tensorrt_llm.cpp import CppEngine

        return CppEngine(directory, spec, library, threads or 1)
    from whisper_factory.backends.tensorrt_llm.session import SessionEngine

    return SessionEngine(directory, spec, library, threads or 1)


def check_fits(directory: Path, spec: EngineSpec) -> None:
    """Refuse a directory that holds no built engine, or one that this machine cannot run."""
    target_of(spec)
    files = [f"{stage}/{name}" for stage in STAGES for name in ENGINE_FILES]
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        raise UserError(f"'{directory}' holds no built engine ({missing[0]} is missing); run the kit's build.sh on its "
                        f"device, or build again")
    stamp, installed = read_stamp(directory), machine.toolkit()
    if not versions.same(stamp["version"], installed):
        raise UserError(f"this engine was built with TensorRT-LLM {stamp['version']}, installed is {installed}, which "
                        f"cannot load it; install {stamp['version']}, or build with trtllm_version={installed}")
    found = machine.compute_capability()
    if found is None:
        raise EnvironmentFault("neither torch nor nvidia-smi sees a GPU here; run the engine on its device, with a "
                               "torch built for its CUDA")
    if stamp["compute_capability"] != found:
        raise UserError(f"this engine was built for compute capability {stamp['compute_capability']}, this GPU has "
                        f"{found}; build it for this GPU, with its device=... (or device.compute_capability={found})")


def import_library() -> Any:
    """The module tensorrt_llm. It prints its version when it is imported; standard output is for transcripts.

    Raises:
        EnvironmentFault: it is installed, but cannot be imported.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import tensorrt_llm
            import tensorrt_llm.runtime
    except Exception as error:  # a CUDA library that is missing is an OSError, among others
        reason = " ".join(str(error).split())[:200]
        raise EnvironmentFault(f"tensorrt_llm is installed but cannot be imported ({type(error).__name__}: {reason}); "
                               f"mend its installation: python -c 'import tensorrt_llm'") from error
    tensorrt_llm.logger.set_level("error")
    return tensorrt_llm
