"""A Progress that keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from whisper_factory.progress import Advance


class Recorder:
    """Called as a step calls it."""

    def __init__(self) -> None:
        self.opened: list[tuple[float | None, str, float]] = []
        self.amounts: list[float] = []

    @contextmanager
    def __call__(self, total: float | None, unit: str, done: float = 0) -> Iterator[Advance]:
        self.opened.append((total, unit, done))
        yield self.amounts.append
