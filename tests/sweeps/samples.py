"""Rows of sweeps as they come: the numbers are of the size that these engines have."""

from __future__ import annotations

from itertools import product
from typing import Any

from whisper_factory.sweeps.front import Row

SWEEP = {"key": "4f1d" * 16, "whisper_factory": "0.1.0",
         "command": "python -m whisper_factory -m model=tiny.en,base precision=int8,int4 "
                    "profile=interactive,duplex_lowmem,batch"}
WER = {"float32": 0.0, "float16": 0.0, "int8": 0.3, "int4": 9.5}  # percentage points more than float32
SPEED = {"float32": 1.0, "float16": 0.93, "int8": 0.55, "int4": 0.58}
SIZE = {"float32": 1.0, "float16": 0.5, "int8": 0.29, "int4": 0.21}
MODELS = {"tiny.en": (6.8, 340, 152.2), "base": (4.3, 530, 291.5), "small.en": (3.4, 1710, 967.1)}  # WER, ms, MB
PROFILES = {"interactive": (0.0, 1.0, 60), "duplex_lowmem": (0.5, 0.62, 14), "batch": (-0.1, 2.6, 410)}
OFFLINE = ("cannot fetch https://openaipublic.azureedge.net/main/whisper/models/small.en.pt (name resolution failed); "
           "connect, or give weights=path weights.path=FILE.pt")


def row(**changes: Any) -> Row:
    """A row that passed, with changes."""
    plain: Row = {
        "composition": "tiny.en-int8-duplex_lowmem-paged-onnxruntime", "key": "0e9bf411648d" + "5" * 52,
        "directory": "outputs/tiny.en-int8-duplex_lowmem-paged-onnxruntime/0e9bf411648d",
        "overrides": ["model=tiny.en"], "command": "python -m whisper_factory model=tiny.en", "status": "passed",
        "exit_code": 0, "error": None, "evidence": "engine", "wer": 4.62, "reference_wer": 4.62, "wer_increase": 0.0,
        "token_agreement": 0.9592, "latency_ms_p50": 132.0, "latency_ms_p95": 161.0, "real_time_factor": 0.0371,
        "peak_mb": 138.0, "engine_mb": 44.0, "build_seconds": 0.6,
    }
    return {**plain, **changes}  # type: ignore[typeddict-item]


def failed(**changes: Any) -> Row:
    """A row of a composition of which nothing was measured."""
    numbers = ("wer", "reference_wer", "wer_increase", "token_agreement", "latency_ms_p50", "latency_ms_p95",
               "real_time_factor", "peak_mb", "engine_mb", "build_seconds")
    nothing = dict.fromkeys((*numbers, "evidence", "key", "directory"))
    return row(**{**nothing, "status": "failed", "exit_code": 4, "error": OFFLINE, **changes})


def twelve() -> list[Row]:
    """Two models, two precisions, three profiles; tiny.en's int4 missed its gate, and one ran out of disk."""
    return _grid(("tiny.en", "base"), ("int8", "int4"), ("interactive", "duplex_lowmem", "batch"))


def twenty_four() -> list[Row]:
    """Three models, four precisions, two profiles."""
    return _grid(("tiny.en", "base", "small.en"), ("float32", "float16", "int8", "int4"),
                 ("interactive", "duplex_lowmem"))


def _grid(models: tuple[str, ...], precisions: tuple[str, ...], profiles: tuple[str, ...]) -> list[Row]:
    rows = [_measured(*axes) for axes in product(models, precisions, profiles)]
    last = rows[-1]
    rows[-1] = failed(composition=last["composition"], overrides=last["overrides"], command=last["command"])
    return rows


def _measured(model: str, precision: str, profile: str) -> Row:
    (wer, latency, size), (more, factor, taken) = MODELS[model], PROFILES[profile]
    found = wer + more + WER[precision] * (2 if model == "tiny.en" else 1)
    typical = round(latency * SPEED[precision] * factor, 1)
    missed = precision == "int4" and (model == "tiny.en" or profile == "duplex_lowmem")
    overrides = [f"model={model}", f"precision={precision}", f"profile={profile}"]
    name = f"{model}-{precision}-{profile}-contiguous-onnxruntime"
    return row(
        composition=name, directory=f"outputs/{name}/0e9bf411648d", overrides=overrides,
        command=f"python -m whisper_factory {' '.join(overrides)}",
        status="missed" if missed else "passed", exit_code=3 if missed else 0,
        error="token_agreement is 0.7352, wanted at least 0.9; runaways is 5, wanted at most 0" if missed else None,
        wer=round(found, 2), reference_wer=round(wer + 1.2, 2), wer_increase=round(found - wer - 1.2, 2),
        token_agreement=0.7352 if missed else 0.9464, latency_ms_p50=typical, latency_ms_p95=round(1.31 * typical, 1),
        real_time_factor=round(typical / 5100, 4),
        peak_mb=round(110 + 1.35 * size * max(SIZE[precision], 0.4) + taken, 1),
        engine_mb=round(size * SIZE[precision], 1), build_seconds=round(0.4 + size / 400, 1),
    )
