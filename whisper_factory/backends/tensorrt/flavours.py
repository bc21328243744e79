"""Which TensorRT: TensorRT for RTX, which builds for its GPUs on any machine, or the full one, which builds where its
GPU is. Looks at what is installed, and imports none of it."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import NamedTuple

from whisper_factory.errors import EnvironmentFault


class Flavour(NamedTuple):
    """One TensorRT."""

    name: str  # as it stands in the target and in stamps
    title: str
    modules: tuple[str, ...]  # that may hold it, the first that is there is taken
    packages: tuple[str, ...]  # distributions that bring one of them
    install: str


RTX = Flavour("rtx", "TensorRT for RTX", ("tensorrt_rtx", "tensorrt_rtx_bindings"),
              ("tensorrt_rtx", "tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu12_bindings"),
              "pip install 'whisper-factory[tensorrt]'")
FULL = Flavour("full", "TensorRT", ("tensorrt",),
               ("tensorrt", "tensorrt_cu13_bindings", "tensorrt_cu12_bindings", "tensorrt_bindings"),
               "pip install tensorrt (on a Jetson it comes with JetPack)")
FLAVOURS = {flavour.name: flavour for flavour in (RTX, FULL)}
# Compute capabilities that TensorRT for RTX builds for. An engine of it is refused by others when it is loaded: 9.0
# (Hopper) was tried, and Jetsons (8.7) are not on its list.
RTX_SERVES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@cache
def installed(flavour: Flavour) -> str | None:
    """Its version, None if it is not installed."""
    for package in flavour.packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def of(compute_capability: str) -> Flavour:
    """The flavour whose engines a GPU runs: TensorRT for RTX where it serves the GPU, unless only the full one is
    installed here."""
    if compute_capability not in RTX_SERVES or (installed(RTX) is None and installed(FULL) is not None):
        return FULL
    return RTX


def need(flavour: Flavour) -> str:
    """Its version.

    Raises:
        EnvironmentFault: it is not installed.
    """
    version = installed(flavour)
    if version is None:
        raise EnvironmentFault(f"backend 'tensorrt' needs {flavour.title} for this device, not installed here; "
                               f"{flavour.install}")
    return version
