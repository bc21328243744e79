"""The machine at hand: its TensorRT-LLM, its GPU, its free memory."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from pathlib import Path

from whisper_factory.backends.tensorrt_llm import versions
from whisper_factory.errors import EnvironmentFault

MEMINFO = Path("/proc/meminfo")


def toolkit() -> str:
    """The installed TensorRT-LLM's version, without importing it.

    Raises:
        EnvironmentFault: it is not installed.
    """
    found = versions.installed()
    if found is None:
        raise EnvironmentFault("backend 'tensorrt_llm' needs tensorrt_llm, not installed here; install it on the "
                               "device (pip install 'whisper-factory[tensorrt_llm]'; on a Jetson, NVIDIA's wheel)")
    return found


def compute_capability() -> str | None:
    """The first GPU's, as "8.7", by torch or else by nvidia-smi; None if neither sees one."""
    with suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            return f"{major}.{minor}"
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=True).stdout
        if found := re.match(r"\d+\.\d+", said.strip()):
            return found[0]
    return None


def free_memory() -> str:
    """What is free now, in words: the system's memory, and the GPU's where torch can tell."""
    parts = []
    system = _available()
    if system is not None:
        parts.append(f"{system / 1e6:.0f} MB of the system's memory")
    try:
        import torch

        parts.append(f"{torch.cuda.mem_get_info()[0] / 1e6:.0f} MB of the GPU's")
    except Exception:  # no torch, no GPU, or one that has just failed: then it is not told
        pass
    return " and ".join(parts) or "an unknown amount"


def _available() -> int | None:
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
