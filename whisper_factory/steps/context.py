"""What a running step may use besides its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whisper_factory.progress import Progress, silent
from whisper_factory.steps.audition import Audition
from whisper_factory.steps.listening import Ears


def nothing() -> None:
    """There is nothing to do meanwhile."""


@dataclass(frozen=True)
class Context:
    """How a step speaks, where downloads are kept, and where what failed is told."""

    say: Callable[[str], None]
    downloads: Path
    failures: Path  # where a failed external command leaves its log and its reproduction; may not exist
    progress: Progress = silent  # how a long piece of work shows how far it is
    caches: Path | None = None  # where a toolkit may keep what makes its next build faster
    meanwhile: Callable[[], None] = nothing  # what a step may do, once, while its processes are at work
    ears: Ears | None = None  # of the reference, started already
    audition: Audition | None = None  # of the engine that is to be validated, begun already
