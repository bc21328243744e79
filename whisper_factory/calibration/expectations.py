"""What 4-bit weights cost in accuracy, as measured (docs/int4.md): an int4 plan says it before anything is built."""

from __future__ import annotations

from whisper_factory.engine_spec import EngineSpec

RECORDINGS = 384
# Word error rates in % in short windows: of float32, and of int4 by calibration method.
MEASURED: dict[str, dict[str, float]] = {
    "tiny.en": {"float32": 20.7, "none": 69.5, "gptq": 20.8},
    "base": {"none": 27.2},
}


def notes(spec: EngineSpec, method: str) -> list[str]:
    """A line for the plan of an engine in 4 bits with a scale a row; none for others."""
    if spec.precision.name != "int4":
        return []
    known = MEASURED.get(spec.model, {})
    if method not in known:
        return [f"int4 of {spec.model} with calibration={method} was not measured: validation tells; docs/int4.md says "
                "what 4 bits cost others"]
    named = {name: f"calibration={name}" for name in known} | {"float32": "precision=float32"}
    said = ", ".join(f"{rate:.1f} % with {named[name]}" for name, rate in known.items())
    return [f"expect of int4: a word error rate of {said} ({spec.model}, {RECORDINGS} recordings, two in five of them "
            "in noise, docs/int4.md)"]
