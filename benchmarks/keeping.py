"""Results that are kept between runs of a benchmark, as long as nothing that shaped them has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from whisper_factory import digest

HERE = Path(__file__).resolve().parent


def fingerprint(*about: Any, scripts: str = "", files: tuple[Path, ...] = ()) -> str:
    """Changes with the package's code, and with what is named: data, the benchmarks' scripts (a pattern), files."""
    code = [*sorted((HERE.parent / "whisper_factory").rglob("*.py")), *(sorted(HERE.glob(scripts)) if scripts else ())]
    said = [about, [digest.of_file(file) for file in (*code, *files)]]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]
