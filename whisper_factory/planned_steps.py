"""The steps that a plan can have, each with its key, as a composition shapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from whisper_factory import backends, clips, digest, keeping, sources
from whisper_factory.backends import KitBackend
from whisper_factory.calibration import CALIBRATION, duration
from whisper_factory.calibration import clips as calibrating_clips
from whisper_factory.calibration.clips import Speech
from whisper_factory.clips import Clip
from whisper_factory.engine_spec import EngineSpec, Precision
from whisper_factory.errors import UserError
from whisper_factory.schema import CalibrationConfig, Composition
from whisper_factory.steps import STEPS
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

# What a validation's evidence is, where it is not the engine itself.
EVIDENCE = {"preflight": "preflight: the packed weights, on the CPU", "graph": "graph: what is compiled, on the CPU"}
GROUP_SCALES = "least squares"  # how quantization/groups.py chooses them; another way is another checkpoint
REFERENCE_BACKEND = "onnxruntime"  # the reference always runs here, on the CPU, whatever the engine runs on


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


def _step(name: str, about: str, params: dict[str, Any], before: Sequence[PlannedStep], tools: dict[str, str],
          hints: dict[str, Any] | None = None) -> PlannedStep:
    inputs = {step.name: step.key for step in before}
    identity = {"step": name, "version": STEPS[name].VERSION, "params": params, "inputs": inputs, "tools": tools}
    return PlannedStep(name, digest.of_data(identity), about, params, inputs, tools, hints or {})


def fetch(composition: Composition, source: sources.Source) -> PlannedStep:
    """Weights and vocabulary."""
    origins = {name: [part.origin for part in parts] for name, parts in source.files.items()}
    hints = {"origins": origins, "vocabulary_url": source.vocabulary.url, "tokenizers": list(source.tokenizers),
             "content": source.content}
    about = f"weights of {composition.model.name} ({source.kind}), vocabulary {source.vocabulary.name}"
    return _step("fetch", about, source.params, (), {}, hints)


def keep(spec: EngineSpec, precision: Precision, fetch: PlannedStep, speech: list[Speech],
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
    points = "1 point" if precision.max_wer_delta == 1 else f"{precision.max_wer_delta:g} points"
    about = (f"which layers keep 8 bits: up to {points} of WER above the exact model, on {len(speech)} clips, "
             f"at most {keeping.duration(spec.dimensions, len(speech))} on two cores")
    return [_step("keep", about, params, (fetch,), STEPS["keep"].tools(), _given(fetch, speech))]


def _given(fetch: PlannedStep, speech: list[Speech]) -> dict[str, Any]:
    """Where weights and clips lie."""
    return {"origins": _origins(fetch), "speech": [asdict(one) | {"path": str(one.path)} for one in speech]}


def _origins(fetch: PlannedStep) -> dict[str, str]:
    """Where each file of weights came from."""
    return {name: origins[0] for name, origins in fetch.hints["origins"].items()}


def convert(spec: EngineSpec, precision: Precision, before: Sequence[PlannedStep], calibration: CalibrationConfig,
             speech: list[Speech]) -> PlannedStep:
    """The checkpoint that every backend reads: in its precision, calibrated where that was asked for."""
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
        long = duration(spec.dimensions, len(speech))
        about += f" by {calibration.method} on {len(speech)} clips, {long} on two cores"
    return _step("convert", about, params, before, STEPS["convert"].tools(), _given(fetch, speech))


def pack(backend: KitBackend, spec: EngineSpec, before: Sequence[PlannedStep]) -> PlannedStep:
    """What the backend builds from, in its own layout."""
    params = {"backend": spec.backend, "backend_version": backend.VERSION, **backend.pack_params(spec)}
    about = f"{spec.backend} checkpoint, {spec.precision.name}"
    return _step("pack", about, params, before, backend.pack_tools(), {"spec": spec.to_dict()})


def kit(backend: KitBackend, spec: EngineSpec, before: Sequence[PlannedStep]) -> PlannedStep:
    """What builds the engine on its device."""
    params = {"spec": spec.to_dict(), "backend_version": backend.VERSION}
    return _step("kit", "build.sh and what else the device needs", params, before, {})


def build(spec: EngineSpec, before: Sequence[PlannedStep]) -> PlannedStep:
    """The engine."""
    backend = backends.get(spec.backend)
    params = {"spec": spec.to_dict(), "backend_version": backend.VERSION}
    shape = spec.profile
    about = (f"{spec.backend} engine, batch {shape.max_batch_size} x beam {shape.max_beam_width}, "
             f"{shape.max_input_len} frames, {spec.kv_cache.mode} KV cache")
    return _step("build", about, params, before, backend.tools())


def validation(composition: Composition, spec: EngineSpec, steps: list[PlannedStep],
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
        (made["fetch"],), embedded.tools(), {**hints, "origins": _origins(made["fetch"])},
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
