"""What 4-bit weights cost in accuracy, as measured (docs/int4.md): an int4 plan says it before anything is built."""

from __future__ import annotations

from whisper_factory.engine_spec import EngineSpec

RECORDINGS = 384
# Word error rates in %: of float32, and by calibration method.
MEASURED: dict[str, dict[str, float]] = {}


def notes(spec: EngineSpec, method: str) -> list[str]:
    """A line for the plan of an engine in 4 bits with a scale a row; none for others."""
    if spec.precision.name != "int4":
        return []
    if spec.model not in MEASURED:
        return [f"int4 of {spec.model} was not measured; docs/int4.md says what it costs others, validation what here"]
    known = MEASURED[spec.model]
    said = ", ".join(f"{known[other]:.1f} % with calibration={other}" for other in ("none", "scale", "gptq"))
    return [f"expect of int4: WER {said}, where float32 has {known['float32']:.1f} % ({spec.model}, {RECORDINGS} "
            f"recordings, docs/int4.md)"]
