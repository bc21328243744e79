"""From a composition to the ordered steps it needs, each with its key, known before anything runs.

A key is the SHA-256 over the step's name and version, its own parameters, the keys or digests of its inputs,
and the versions of the tools whose output it is. No clock, no path and no host name takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from whisper_factory import backends, clips, digest, keeping, sources
from whisper_factory.backends import KitBackend
from whisper_factory.calibration import CALIBRATION, duration, expectations
from whisper_factory.calibration import clips as calibrating_clips
from whisper_factory.calibration.clips import Speech
from whisper_factory.clips import Clip
from whisper_factory.engine_spec import EngineSpec, Precision, said
from whisper_factory.errors import UserError
from whisper_factory.schema import CalibrationConfig, Composition, ValidationConfig
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
    notes: tuple[str, ...] = ()  # what a user should know before anything is built
    clips: str | None = None  # digest of the validation's recordings and their texts

    @property
    def directory(self) -> Path:
        """outputs/<name>/<first 12 hex of the composition's key>."""
        return Path(self.composition.outputs) / self.composition.name / self.key[:12]


def make(composition: Composition, in_store: Callable[[str, str], bool], notes: Sequence[str] = ()) -> Plan:
    """Plan a settled composition. Reads and hashes local inputs; writes and downloads nothing.

    Args:
        notes: what settling it had to say.
        in_store: whether a step (name, key) is already finished; decides only which source `weights=auto` is.

    Raises:
        UserError: an input that the composition names is missing or too small.
        EnvironmentFault: a tool that a step needs is not installed.
    """
    source = sources.choose(
        composition.model, composition.weights, lambda found: in_store("fetch", _fetch(composition, found).key)
    )
    backend, kit = backends.get(composition.backend_package), backends.kit(composition.backend_package)
    spec = backend.settle(composition.engine_spec())
    fetch = _fetch(composition, source)
    speech, skipped = _speech(composition)
    chosen = _clips(composition.validation)
    keep = _keep(spec, backend.checkpoint_precision(spec), fetch, speech, chosen)
    convert = _convert(spec, backend.checkpoint_precision(spec), (fetch, *keep), composition.calibration, speech)
    notes = [*notes, *skipped, *expectations.notes(spec, composition.calibration.method)]
    steps = [fetch, *keep, convert]
    if kit:
        kit.check_installed(spec)
        steps += [_pack(kit, spec, (convert, *keep)), *([_kit(kit, spec, keep)] if kit.needs_kit(spec) else [])]
    if composition.stop_after not in ("fetch", "convert") and (not kit or kit.can_build(spec)):
        packed = next((step for step in steps if step.name == "pack"), convert)
        steps.append(_build(spec, (packed, *keep)))
    if chosen and composition.stop_after is None:
        steps += _validation(composition, spec, steps, chosen)
    if composition.stop_after == "fetch":
        steps = steps[:1]
    if kit and not kit.can_build(spec) and composition.stop_after not in ("fetch", "convert"):
        notes = [*notes, f"{spec.backend} cannot build it here: the plan ends with a kit for the device"]
    if source.kind == "random":
        notes = [*notes, f"model {composition.model.name} has random weights: it understands nothing, and says one "
                         "sentence whatever it hears"]
    heard = clips.digest(chosen) if chosen else None
    key = _composition_key(composition, spec, fetch, heard, [*keep, convert])
    return Plan(composition, spec, key, tuple(steps), source, tuple(notes), heard)


def _step(name: str, about: str, params: dict[str, Any], before: Sequence[PlannedStep], tools: dict[str, str],
          hints: dict[str, Any] | None = None) -> PlannedStep:
    inputs = {step.name: step.key for step in before}
    identity = {"step": name, "version": STEPS[name].VERSION, "params": params, "inputs": inputs, "tools": tools}
    return PlannedStep(name, digest.of_data(identity), about, params, inputs, tools, hints or {})


def _fetch(composition: Composition, source: sources.Source) -> PlannedStep:
    origins = {name: [part.origin for part in parts] for name, parts in source.files.items()}
    hints = {"origins": origins, "vocabulary_url": source.vocabulary.url, "tokenizers": list(source.tokenizers),
             "content": source.content}
    about = f"weights of {composition.model.name} ({source.kind}), vocabulary {source.vocabulary.name}"
    return _step("fetch", about, source.params, (), {}, hints)


def _keep(spec: EngineSpec, precision: Precision, fetch: PlannedStep, speech: list[Speech],
          chosen: list[Clip]) -> list[PlannedStep]:
    """The choice of the layers that keep 8 bits, if there is one to be made.

    Raises:
        UserError: it would be made on what validates the engine.
    """
    if precision.max_wer_delta is None:
        return []
    heard = {digest.of_file(clip.path) for clip in chosen}
    for one in speech:
        if digest.of_file(one.path) in heard:
            raise UserError(f"calibration.clips: {one.name} is among the clips that validate the engine, which would "
                            "flatter it; decide which layers keep 8 bits on other speech")
    params = {"kind": fetch.params["kind"], "model": spec.model, "dimensions": asdict(spec.dimensions),
              "precision": precision.to_dict(), "clips": calibrating_clips.digest(speech),
              "windows": CALIBRATION}
    if precision.group_size:
        params["group_scales"] = GROUP_SCALES
    about = (f"which layers keep 8 bits: up to {precision.max_wer_delta:g} points of WER above the exact model, on "
             f"{len(speech)} clips, at most {keeping.duration(spec.dimensions, len(speech))} on two cores")
    return [_step("keep", about, params, (fetch,), STEPS["keep"].tools(), _given(fetch, speech))]


def _given(fetch: PlannedStep, speech: list[Speech]) -> dict[str, Any]:
    """Where weights and clips lie."""
    return {"origins": {name: origins[0] for name, origins in fetch.hints["origins"].items()},
            "speech": [asdict(one) | {"path": str(one.path)} for one in speech]}


def _convert(spec: EngineSpec, precision: Precision, before: Sequence[PlannedStep], calibration: CalibrationConfig,
             speech: list[Speech]) -> PlannedStep:
    fetch = before[0]
    params: dict[str, Any] = {
        "kind": fetch.params["kind"],
        "model": spec.model,
        "dimensions": asdict(spec.dimensions),
        "precision": precision.to_dict(),
    }
    about = f"canonical checkpoint, {precision.name}"
    if precision.group_size:
        params["group_scales"] = GROUP_SCALES
    if calibration.method != "none":
        params["calibration"] = {"method": calibration.method, "seed": calibration.seed, "version": CALIBRATION,
                                 "clips": calibrating_clips.digest(speech)}
        about += f" by {calibration.method} on {len(speech)} clips, {duration(spec.dimensions, speech)} on two cores"
    return _step("convert", about, params, before, STEPS["convert"].tools(), _given(fetch, speech))


def _pack(kit: KitBackend, spec: EngineSpec, before: Sequence[PlannedStep]) -> PlannedStep:
    params = {"backend": spec.backend, "backend_version": kit.VERSION, **kit.pack_params(spec)}
    about = f"{spec.backend} checkpoint, {spec.precision.name}"
    return _step("pack", about, params, before, kit.pack_tools(), {"spec": spec.to_dict()})


def _kit(kit: KitBackend, spec: EngineSpec, before: Sequence[PlannedStep]) -> PlannedStep:
    params = {"spec": spec.to_dict(), "backend_version": kit.VERSION}
    return _step("kit", "build.sh and what else the device needs", params, before, {})


def _build(spec: EngineSpec, before: Sequence[PlannedStep]) -> PlannedStep:
    backend = backends.get(spec.backend)
    params = {"spec": spec.to_dict(), "backend_version": backend.VERSION}
    shape = spec.profile
    about = (f"{spec.backend} engine, batch {shape.max_batch_size} x beam {shape.max_beam_width}, "
             f"{shape.max_input_len} frames, {spec.kv_cache.mode} KV cache")
    return _step("build", about, params, before, backend.tools())


def _validation(composition: Composition, spec: EngineSpec, steps: list[PlannedStep],
                chosen: list[Clip]) -> list[PlannedStep]:
    """The reference's transcripts, and the comparison with them: of the engine, or of what will be built from."""
    made = {step.name: step for step in steps}
    kit = backends.kit(spec.backend)
    instead = kit.stand_in_spec(spec) if kit and not ("build" in made and kit.runs_here(spec)) else None
    embedded = backends.get(REFERENCE_BACKEND)
    heard, short = clips.digest(chosen), spec.window_frames < WINDOW_FRAMES
    hints = {"clips": [asdict(clip) | {"path": str(clip.path)} for clip in chosen]}
    reference = _step(
        "reference", f"float32 at 3000 frames, transcripts of {len(chosen)} clips",
        {"kind": made["fetch"].params["kind"], "model": spec.model, "dimensions": asdict(spec.dimensions),
         "clips": heard, "max_input_len": spec.profile.max_input_len, "short_window": short,
         "backend": [REFERENCE_BACKEND, embedded.VERSION]},
        (made["fetch"],), embedded.tools(), hints,
    )
    params = {"name": composition.validation.name, "clips": heard, "repeats": composition.validation.repeats,
              "gates": _gates(composition, instead is not None), "max_input_len": spec.profile.max_input_len,
              "short_window": short}
    about = f"{composition.validation.name}: {len(chosen)} clips, paired with the reference"
    if kit is None or instead is None:
        return [reference, _step("validate", about, params, (made["build"], reference),
                                 backends.get(spec.backend).tools(), hints)]
    params |= {"repeats": 1, "backend": spec.backend, "evidence": kit.EVIDENCE, "stand_in": instead.to_dict(),
               "stand_in_version": backends.get(instead.backend).VERSION}
    return [reference, _step("validate", f"{about}; {EVIDENCE[kit.EVIDENCE]}", params,
                             (made["pack"], reference, *([made["keep"]] if "keep" in made else [])),
                             embedded.tools(), hints)]


def _gates(composition: Composition, stand_in: bool) -> dict[str, float | None]:
    """The limits for this precision. What stands in for an engine gates neither latency nor memory."""
    validation, precision = composition.validation, composition.precision

    def of(limits: dict[str, float]) -> float | None:
        return limits.get(precision.name, limits.get(precision.gated_as or ""))

    return {
        "min_token_agreement": of(validation.min_token_agreement),
        "min_edge_token_agreement": of(validation.min_edge_token_agreement),
        "max_runaways": validation.max_runaways,
        "max_wer_increase": of(validation.max_wer_increase),
        "max_latency_ms": None if stand_in else validation.max_latency_ms,
        "max_peak_mb": None if stand_in else validation.max_peak_mb,
    }


# What a validation's evidence is, where it is not the engine itself.
EVIDENCE = {"preflight": "preflight: the packed weights, on the CPU", "graph": "graph: what is compiled, on the CPU"}
GROUP_SCALES = "least squares"  # how quantization/groups.py chooses them; another way is another checkpoint
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


def _speech(composition: Composition) -> tuple[list[Speech], list[str]]:
    """What is calibrated with, or decided on, and a warning about each clip that cannot be read."""
    calibration = composition.calibration
    if calibration.method == "none" and composition.precision.max_wer_delta is None:
        return [], []
    if calibration.clips:
        return calibrating_clips.from_manifest(sources.local(calibration.clips))
    return calibrating_clips.bundled(), []


def _composition_key(composition: Composition, spec: EngineSpec, fetch: PlannedStep, heard: str | None,
                     shaping: Sequence[PlannedStep]) -> str:
    """What was declared, with digests for the inputs in place of where they lie; tool versions are not declared."""
    axes = ("model", "precision", "profile", "kv_cache", "backend", "device")
    declared = {axis: asdict(getattr(composition, axis)) for axis in axes}
    if composition.backend.provider == "cpu":
        del declared["backend"]["provider"]
    declared["model"] = {"name": composition.model.name, "dimensions": declared["model"]["dimensions"]}
    declared["precision"] = said(declared["precision"])
    for step in shaping:
        if step.name == "keep":
            declared["decided_on"] = step.params["clips"]
        elif "calibration" in step.params:
            declared["calibration"] = step.params["calibration"]
    if spec.target:
        declared["target"] = asdict(spec.target)
    declared["validation"] = asdict(composition.validation) | {"clips": heard}
    return digest.of_data({**declared, "weights": fetch.params})
