"""Opening ONNX Runtime sessions: the options, and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    import onnxruntime


def physical_cores() -> int:
    """Physical cores among the processors this process may run on; at least 1."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        try:
            cores.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def open_session(model: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentFault(f"onnxruntime cannot be imported ({error}); "
                               f"pip install 'whisper-factory[onnxruntime]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or physical_cores()
    options.log_severity_level = 3
    for kv in os.environ.get("ORTOPT", "").split(","):  # EXPERIMENT
        if "=" in kv:
            k, v = kv.split("=")
            if k == "arena": options.enable_cpu_mem_arena = bool(int(v))
            elif k == "pattern": options.enable_mem_pattern = bool(int(v))
            elif k == "level": options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, v)
            else: options.add_session_config_entry(k, v)
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"'{model}' cannot be opened ({str(error).splitlines()[0]}); build the engine again") from error
