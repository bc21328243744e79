"""Backends: one folder each behind one small protocol. Nothing here imports a backend's library."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from whisper_factory.engine_spec import EngineSpec, KVMode, Precision
from whisper_factory.errors import UserError, choices
from whisper_factory.progress import Progress, silent

if TYPE_CHECKING:
    from whisper_factory.backends.engines import Engine, GeneratingEngine
    from whisper_factory.memory import Part


class Backend(Protocol):
    """What a backend's package offers as module-level names."""

    VERSION: int  # raised whenever the same inputs would give other bytes
    LIBRARIES: tuple[str, ...]  # modules that running an engine imports
    COMPUTED: dict[str, str]  # files that a floating-point kernel computed (patterns), and the type of their values
    UNPROMISED: tuple[str, ...]  # files that are other bytes with every build (patterns)

    def tools(self) -> dict[str, str]:
        """Versions of the installed packages that shape the engine's bytes; must not import them.

        Raises:
            EnvironmentFault: a package the backend needs is not installed (says which extra brings it).
        """

    def check(self, spec: EngineSpec) -> None:
        """Raise UserError, before any work, for a combination that this backend cannot build."""

    def notes(self, spec: EngineSpec) -> list[str]:
        """What a user should know before anything is built, a line each."""

    def footprint(self, spec: EngineSpec, turn_frames: int | None = None) -> list[Part]:
        """What the engine will take of its device, part by part.

        Args:
            spec: settled.
            turn_frames: the longest audio that it will be given, in mel frames; None: the longest that it accepts.
        """

    def kv_modes(self, spec: EngineSpec) -> tuple[KVMode, ...]:
        """The KV-cache modes this backend can run the engine with, best first."""

    def settle(self, spec: EngineSpec) -> EngineSpec:
        """The engine that this backend makes of a declaration: its real window, say, where it cannot shorten one."""

    def checkpoint_precision(self, spec: EngineSpec) -> Precision:
        """How `convert` must store the weights that this backend builds from."""

    def build(
        self, source: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], failures: Path,
        progress: Progress = silent, caches: Path | None = None,
    ) -> None:
        """Build an engine into the empty directory `out`.

        Args:
            source: the canonical checkpoint, or what `pack` made of it.
            failures: where a failed external command leaves its log and a script that reproduces it; may not exist.
            progress: for work of its own that takes long.
            caches: where a toolkit may keep what makes its next build faster; None: nowhere.
        """

    def load(self, engine: Path, threads: int | None = None) -> Engine | GeneratingEngine:
        """Load an engine directory."""


class DeviceBackend(Backend, Protocol):
    """A backend whose engines are built anywhere, and run on a GPU of this machine."""

    def device_memory(self) -> tuple[str, int | None]:
        """The GPU's name, and its bytes where there is one."""

    def check_device(self, spec: EngineSpec, needed: int) -> None:
        """Raise EnvironmentFault, before any work, if this machine cannot run an engine that takes `needed` bytes."""


class KitBackend(Backend, Protocol):
    """A backend whose engines are for a GPU: any machine packs for it, and engines are built where they can be. Where
    that is on their device alone, from a kit."""

    EVIDENCE: str  # what a validation of the stand-in is called

    def check_installed(self, spec: EngineSpec) -> None:
        """Raise UserError if the toolkit is installed in another version than the one that was asked for."""

    def can_build(self, spec: EngineSpec) -> bool:
        """Whether the toolkit is installed, so that `build` can follow `pack`. `spec` is settled, here and below."""

    def runs_here(self, spec: EngineSpec) -> bool:
        """Whether the engine, once built, can be run on this machine."""

    def needs_kit(self, spec: EngineSpec) -> bool:
        """Whether a kit is to be made, for a device to build from."""

    def pack_tools(self) -> dict[str, str]:
        """As `tools`, for `pack`."""

    def pack_params(self, spec: EngineSpec) -> dict[str, Any]:
        """What decides the bytes that `pack` makes of a canonical checkpoint; plain data."""

    def pack(self, checkpoint: Path, spec: EngineSpec, out: Path, say: Callable[[str], None],
             progress: Progress = silent) -> None:
        """Fill the empty directory `out` with the checkpoint in the toolkit's own format, and the vocabulary."""

    def write_kit(self, spec: EngineSpec, out: Path) -> None:
        """What a device needs beside the packed checkpoint: build.sh, requirements.txt, runtime/engine.json."""

    def stand_in_spec(self, spec: EngineSpec) -> EngineSpec:
        """The engine that stands for this one on a CPU."""

    def stand_in(self, packed: Path, spec: EngineSpec, scratch: Path, say: Callable[[str], None], failures: Path,
                 progress: Progress = silent) -> Path:
        """Make that engine, of what `pack` wrote, in the empty or missing directory `scratch`; where it can be loaded.

        Args:
            spec: `stand_in_spec`'s.
        """


BACKENDS = ("onnxruntime", "tensorrt", "tensorrt_llm")
PROVIDERS = {"cpu": "onnxruntime", "cuda": "onnxruntime_cuda"}  # of onnxruntime: where it runs -> the package for it


def package(name: str, provider: str) -> str:
    """The package that makes engines of a backend for one of its providers."""
    return PROVIDERS[provider] if name == "onnxruntime" else name


def get(name: str) -> Backend:
    """The backend's package, imported now."""
    if name not in BACKENDS and name not in PROVIDERS.values():
        raise UserError(f"unknown backend '{name}'; {choices(name, BACKENDS)}")
    backend: Backend = importlib.import_module(f"whisper_factory.backends.{name}")
    return backend


def kit(name: str) -> KitBackend | None:
    """The backend's package if its engines are built from kits, else None."""
    backend: Any = get(name)
    return backend if hasattr(backend, "write_kit") else None


def on_device(name: str) -> DeviceBackend | None:
    """The backend's package if its engines run on a GPU of the machine at hand, else None."""
    backend: Any = get(name)
    return backend if hasattr(backend, "check_device") else None


def load(engine: Path, threads: int | None = None) -> Engine | GeneratingEngine:
    """Load an engine directory with the backend that built it."""
    return get(EngineSpec.load(engine).backend).load(engine, threads)
