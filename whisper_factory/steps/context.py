"""What a running step may use besides its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """How a step speaks, and where downloads are kept."""

    say: Callable[[str], None]
    downloads: Path
