"""What 4-bit weights cost in accuracy, as measured (docs/int4.md): an int4 plan says it before anything is built."""

from __future__ import annotations

from whisper_factory.engine_spec import EngineSpec

RECORDINGS = 384
FLOAT32 = {"tiny.en": 20.7, "base": 16.3}  # word error rates in % in short windows
# The same in 4 bits, by model, precision and calibration method.
MEASURED: dict[str, dict[str, dict[str, float]]] = {
    "tiny.en": {"int4": {"none": 69.5, "gptq": 22.4}, "int4_g32": {"none": 23.6, "gptq": 20.2},
                "int4_g128": {"none": 45.4}},
    "base": {"int4": {"none": 27.2, "gptq": 17.0}},
}
NAMES = ("int4", "int4_g128", "int4_g32")


def notes(spec: EngineSpec, method: str) -> list[str]:
    """A line for the plan of an engine in 4 bits; none for others."""
    name = spec.precision.name
    if name not in NAMES:
        return []
    known = MEASURED.get(spec.model, {}).get(name, {})
    if method not in known or spec.precision.keep:
        kept = " and layers that keep 8 bits" if spec.precision.keep else ""
        return [f"{name} of {spec.model} with calibration={method}{kept} was not measured: validation tells; "
                "docs/int4.md says what 4 bits cost others"]
    rates = {"precision=float32": FLOAT32[spec.model]} | {f"calibration={other}": rate for other, rate in known.items()}
    said = ", ".join(f"{rate:.1f} % with {how}" for how, rate in rates.items())
    return [f"expect of {name}: a word error rate of {said} ({spec.model}, {RECORDINGS} recordings, two in five of "
            "them in noise, docs/int4.md)"]
