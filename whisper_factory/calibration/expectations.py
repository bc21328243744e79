"""What 4-bit weights cost in accuracy, as measured (docs/int4.md): an int4 plan says it before anything is built."""

from __future__ import annotations

from whisper_factory.engine_spec import EngineSpec

RECORDINGS = 384
FLOAT32 = {"tiny.en": 20.5, "base": 15.0}  # word error rates in % in short windows
# The same in 4 bits, by model, precision and how its integers were chosen.
MEASURED: dict[str, dict[str, dict[str, float]]] = {
    "tiny.en": {"int4": {"calibration=none": 40.1, "calibration=gptq": 19.5},
                "int4_g32": {"calibration=none": 23.6, "calibration=gptq": 19.5},
                "int4_g128": {"calibration=none": 32.3}, "int4_auto": {"precision.max_wer_delta=1": 20.6}},
    "base": {"int4": {"calibration=none": 20.9, "calibration=gptq": 15.0}, "int4_g32": {"calibration=gptq": 15.0}},
}
NAMES = ("int4", "int4_g128", "int4_g32", "int4_auto")


def notes(spec: EngineSpec, method: str) -> list[str]:
    """A line for the plan of an engine in 4 bits; none for others."""
    name, budget = spec.precision.name, spec.precision.max_wer_delta
    if name not in NAMES:
        return []
    chosen = f"calibration={method}" if budget is None else f"precision.max_wer_delta={budget:g}"
    named = spec.precision.keep if budget is None else ()
    known = MEASURED.get(spec.model, {}).get(name, {})
    if chosen not in known or named:
        kept = " and layers that keep 8 bits" if named else ""
        return [f"{name} of {spec.model} with {chosen}{kept} was not measured: validation tells; "
                "docs/int4.md says what 4 bits cost others"]
    rates = {"precision=float32": FLOAT32[spec.model]} | known
    said = ", ".join(f"{rate:.1f} % with {how}" for how, rate in rates.items())
    return [f"expect of {name}: a word error rate of {said} ({spec.model}, {RECORDINGS} recordings, two in five of "
            "them in noise, docs/int4.md)"]
