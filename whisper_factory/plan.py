"""From a composition to the ordered steps it needs, each with its key, known before anything runs.

A key is the SHA-256 over the step's name and version, its own parameters, the keys or digests of its inputs,
and the versions of the tools whose output it is. No clock, no path and no host name takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from whisper_factory import backends, clips, digest, sources
from whisper_factory.clips import Clip
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.schema import Composition, ValidationConfig
from whisper_factory.steps import STEPS
from whisper_factory.whisper.dimensions import WINDOW_FRAMES


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan: everything its `run` needs apart from the directories of its inputs."""

    name: str
    key: str
    about: str  # what it does, for a person
    params: dict[str, Any]  # plain data, part of the key
    inputs: dict[str, str]  # step name -> key
    tools: dict[str, str]
    hints: dict[str, Any] = field(default_factory=dict)  # where things lie on this machine; not part of the key

    @property
    def record(self) -> dict[str, Any]:
        """What the store keeps beside the step's output."""
        return {"version": STEPS[self.name].VERSION, "params": self.params, "inputs": self.inputs, "tools": self.tools}


@dataclass(frozen=True)
class Plan:
    """The steps of one composition, in order, and the directory their results belong in."""

    composition: Composition
    spec: EngineSpec
    key: str
    steps: tuple[PlannedStep, ...]
    source: sources.Source

    @property
    def directory(self) -> Path:
        """outputs/<name>/<first 12 hex of the composition's key>."""
        return Path(self.composition.outputs) / self.composition.name / self.key[:12]


def make(composition: Composition, in_store: Callable[[str, str], bool]) -> Plan:
    """Plan a checked composition. Reads and hashes local inputs; writes and downloads nothing.

    Args:
        in_store: whether a step (name, key) is already finished; decides only which source `weights=auto` is.

    Raises:
        UserError: an input that the composition names is missing or too small.
        EnvironmentFault: a tool that a step needs is not installed.
    """
    source = sources.choose(
        composition.model, composition.weights, lambda found: in_store("fetch", _fetch(composition, found).key)
    )
    spec = composition.engine_spec()
    fetch = _fetch(composition, source)
    convert = _convert(composition, fetch)
    steps = [fetch, convert]
    if composition.stop_after not in ("fetch", "convert"):
        steps.append(_build(spec, convert))
    chosen = _clips(composition.validation)
    if chosen and composition.stop_after is None:
        steps += _validation(composition, spec, steps, chosen)
    if composition.stop_after == "fetch":
        steps = steps[:1]
    return Plan(composition, spec, _composition_key(composition, fetch, chosen), tuple(steps), source)


def _step(name: str, about: str, params: dict[str, Any], before: Sequence[PlannedStep], tools: dict[str, str],
          hints: dict[str, Any] | None = None) -> PlannedStep:
    inputs = {step.name: step.key for step in before}
    identity = {"step": name, "version": STEPS[name].VERSION, "params": params, "inputs": inputs, "tools": tools}
    return PlannedStep(name, digest.of_data(identity), about, params, inputs, tools, hints or {})


def _fetch(composition: Composition, source: sources.Source) -> PlannedStep:
    origins = {name: [part.origin for part in parts] for name, parts in source.files.items()}
    hints = {"origins": origins, "vocabulary_url": source.vocabulary.url, "tokenizers": list(source.tokenizers)}
    about = f"weights of {composition.model.name} ({source.kind}), vocabulary {source.vocabulary.name}"
    return _step("fetch", about, source.params, (), {}, hints)


def _convert(composition: Composition, fetch: PlannedStep) -> PlannedStep:
    params = {
        "kind": fetch.params["kind"],
        "model": composition.model.name,
        "dimensions": asdict(composition.engine_spec().dimensions),
        "precision": asdict(composition.engine_spec().precision),
    }
    hints = {"origins": {name: origins[0] for name, origins in fetch.hints["origins"].items()}}
    about = f"canonical checkpoint, {composition.precision.name}"
    return _step("convert", about, params, (fetch,), STEPS["convert"].tools(), hints)


def _build(spec: EngineSpec, convert: PlannedStep) -> PlannedStep:
    backend = backends.get(spec.backend)
    params = {"spec": spec.to_dict(), "backend_version": backend.VERSION}
    shape = spec.profile
    about = (f"{spec.backend} engine, batch {shape.max_batch_size} x beam {shape.max_beam_width}, "
             f"{shape.max_input_len} frames, {spec.kv_cache.mode} KV cache")
    return _step("build", about, params, (convert,), backend.tools())


def _validation(composition: Composition, spec: EngineSpec, steps: list[PlannedStep],
                chosen: list[Clip]) -> list[PlannedStep]:
    """The reference's transcripts, and the engine's comparison with them."""
    fetch, _, build = steps
    backend = backends.get(REFERENCE_BACKEND)
    heard, short = clips.digest(chosen), spec.window_frames < WINDOW_FRAMES
    hints = {"clips": [asdict(clip) | {"path": str(clip.path)} for clip in chosen]}
    reference = _step(
        "reference", f"float32 at 3000 frames, transcripts of {len(chosen)} clips",
        {"kind": fetch.params["kind"], "model": spec.model, "dimensions": asdict(spec.dimensions), "clips": heard,
         "max_input_len": spec.profile.max_input_len, "short_window": short,
         "backend": [REFERENCE_BACKEND, backend.VERSION]},
        (fetch,), backend.tools(), hints,
    )
    validation, precision = composition.validation, spec.precision.name
    gates = {
        "min_token_agreement": validation.min_token_agreement.get(precision),
        "min_edge_token_agreement": validation.min_edge_token_agreement.get(precision),
        "max_runaways": validation.max_runaways,
        "max_wer_increase": validation.max_wer_increase.get(precision),
        "max_latency_ms": validation.max_latency_ms,
        "max_peak_mb": validation.max_peak_mb,
    }
    validate = _step(
        "validate", f"{validation.name}: {len(chosen)} clips, paired with the reference",
        {"name": validation.name, "clips": heard, "repeats": validation.repeats, "gates": gates,
         "max_input_len": spec.profile.max_input_len, "short_window": short},
        (build, reference), backends.get(spec.backend).tools(), hints,
    )
    return [reference, validate]


REFERENCE_BACKEND = "onnxruntime"  # the reference always runs here, on the CPU, whatever the engine runs on


def _clips(validation: ValidationConfig) -> list[Clip]:
    if validation.clips:
        chosen = clips.from_manifest(sources.local(validation.clips))
    elif validation.bundled == "none":
        return []
    else:
        chosen = clips.bundled("full" if validation.bundled == "full" else "quick")
    if len(chosen) < validation.min_clips:
        where = validation.clips or "the bundled set"
        raise UserError(f"validation={validation.name} needs {validation.min_clips} clips or more, {where} has "
                        f"{len(chosen)}; add clips, or lower validation.min_clips")
    return chosen


def _composition_key(composition: Composition, fetch: PlannedStep, chosen: list[Clip]) -> str:
    """What was declared, with digests for the inputs in place of where they lie; tool versions are not declared."""
    axes = ("model", "precision", "profile", "kv_cache", "backend", "device")
    declared = {axis: asdict(getattr(composition, axis)) for axis in axes}
    declared["model"] = {"name": composition.model.name, "dimensions": declared["model"]["dimensions"]}
    declared["validation"] = asdict(composition.validation) | {"clips": clips.digest(chosen) if chosen else None}
    return digest.of_data({**declared, "weights": fetch.params})
