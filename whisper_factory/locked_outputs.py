"""What a lock promises of the outputs of a run, and whether they are so.

In two classes: to the byte, on any machine; and, for what a floating-point kernel computed, to the byte on one machine
and within CLOSE on others, on values spread over the file that the lock keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from whisper_factory import backends, outputs
from whisper_factory.plan import Plan
from whisper_factory.store import Finished

SHAPING = ("convert", "pack", "kit", "build")  # the steps whose outputs are promised
SAMPLES = 64
CLOSE = 1e-3


def promised(plan: Plan, finished: Mapping[str, Finished]) -> dict[str, Any]:
    """The outputs of finished steps by what is promised of them, named as in the engine directory."""
    backend = backends.get(plan.spec.backend)
    exact: dict[str, Any] = {}
    computed: dict[str, Any] = {}
    free: list[str] = []
    for name, about, path in outputs.files(finished, SHAPING):
        kind = next((kind for pattern, kind in backend.COMPUTED.items() if fnmatch(path.name, pattern)), None)
        if any(fnmatch(path.name, pattern) for pattern in backend.UNPROMISED):
            free.append(name)
        elif kind:
            computed[name] = {**about, "sample": _sample(path, kind)}
        else:
            exact[name] = about
    return {"exact": exact, "computed": computed, "not_promised": free}


def _sample(path: Path, kind: str) -> list[float]:
    """Some of the values of a file of this type, spread over it."""
    import numpy as np

    values = np.fromfile(path, kind)
    return [round(float(value), 6) for value in values[:: max(1, len(values) // SAMPLES)][:SAMPLES]]


def close(known: list[float], now: list[float]) -> bool:
    """Within CLOSE, or CLOSE of the value where that is above 1: float16 is no finer there."""
    return len(known) == len(now) and all(abs(a - b) <= CLOSE * max(1, abs(a)) for a, b in zip(known, now, strict=True))


def has_outputs(outputs: Any) -> bool:
    """Whether a lock's outputs are as `promised` gives them, or said to be unproven."""
    if isinstance(outputs, str):
        return True
    parts = [outputs.get(part) for part in ("exact", "computed")] if isinstance(outputs, dict) else [None]
    samples = [about.get("sample") if isinstance(about, dict) else None
               for about in (parts[-1].values() if isinstance(parts[-1], dict) else ())]
    return all(isinstance(part, dict) for part in parts) and all(
        isinstance(sample, list) and all(isinstance(value, float) for value in sample) for sample in samples)
