"""Backends: one folder each behind one small protocol. Nothing here imports a backend's library."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError, choices

if TYPE_CHECKING:  # planning must not pay for importing numpy
    import numpy as np
    from numpy.typing import NDArray


class Utterance(Protocol):
    """A batch of encoded windows being decoded: their cross-attention KV and the growing self-attention KV.

    Rows are sequences. After `Engine.encode` there is one row per window; `select` repeats, reorders or
    drops rows (beams of one window stay adjacent). All rows have the same length. Where memory for sequences is
    short, `room` says how many windows can go on, and `split` lets the others wait.
    """

    length: int  # tokens decoded so far, in every row

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Feed tokens [rows, new] and return the logits [rows, n_vocab] after the last of them.

        Several new tokens at once are for the prompt only (`length == 0`).
        """

    def select(self, rows: NDArray[np.int64]) -> None:
        """Row i continues from the past of former row rows[i]; len(rows) may differ from before."""

    def rewind(self) -> None:
        """Forget every token: back to length 0, the cross-attention KV kept."""

    def room(self, new: int, beams: int) -> int:
        """How many windows, from the first on, can be decoded for `new` more tokens in `beams` rows each."""

    def split(self, windows: int) -> Utterance:
        """Leave all but the first `windows` windows, with their past, to an utterance of its own."""

    def close(self) -> None:
        """Give the KV cache's memory back (what that means is the KV mode's business)."""


class Engine(Protocol):
    """A loaded engine. One batch at a time: `encode` closes what is left of the one before."""

    spec: EngineSpec
    threads: int  # that one operator may use

    def encode(self, mel: NDArray[np.float32]) -> Utterance:
        """Run the encoder on log-mel windows [batch, n_mels, frames] and project the cross-attention KV.

        `frames` is even and at most spec.window_frames; below 3000 the end anchor is appended.
        """


class Backend(Protocol):
    """What a backend's package offers as module-level names."""

    VERSION: int  # raised whenever the same inputs would give other bytes
    LIBRARIES: tuple[str, ...]  # modules that running an engine imports

    def tools(self) -> dict[str, str]:
        """Versions of the installed packages that shape the engine's bytes; must not import them.

        Raises:
            EnvironmentFault: a package the backend needs is not installed (says which extra brings it).
        """

    def check(self, spec: EngineSpec) -> None:
        """Raise UserError, before any work, for a combination that this backend cannot build."""

    def build(self, checkpoint: Path, spec: EngineSpec, out: Path, say: Callable[[str], None]) -> None:
        """Build an engine from a canonical checkpoint directory into the empty directory `out`."""

    def load(self, engine: Path, threads: int | None = None) -> Engine:
        """Load an engine directory."""


BACKENDS = ("onnxruntime",)


def get(name: str) -> Backend:
    """The backend's package, imported now."""
    if name not in BACKENDS:
        raise UserError(f"unknown backend '{name}'; {choices(name, BACKENDS)}")
    backend: Backend = importlib.import_module(f"whisper_factory.backends.{name}")
    return backend


def load(engine: Path, threads: int | None = None) -> Engine:
    """Load an engine directory with the backend that built it."""
    return get(EngineSpec.load(engine).backend).load(engine, threads)
