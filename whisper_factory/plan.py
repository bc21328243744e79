"""From a composition to the ordered steps it needs, each with its key, known before anything runs.

A key is the SHA-256 over the step's name and version, its own parameters, the keys or digests of its inputs,
and the versions of the tools whose output it is. No clock, no path and no host name takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from whisper_factory import backends, clips, digest, planned_steps, sources
from whisper_factory.calibration import clips as calibrating_clips
from whisper_factory.calibration import expectations
from whisper_factory.calibration.clips import Speech
from whisper_factory.clips import Clip
from whisper_factory.engine_spec import EngineSpec, said
from whisper_factory.errors import UserError
from whisper_factory.planned_steps import PlannedStep
from whisper_factory.schema import Composition, ValidationConfig
from whisper_factory.whisper.dimensions import Dimensions


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
    def fetched(found: sources.Source) -> bool:
        return in_store("fetch", planned_steps.fetch(composition, found).key)

    source = sources.choose(composition.model, composition.weights, fetched)
    backend, kit = backends.get(composition.backend_package), backends.kit(composition.backend_package)
    spec = backend.settle(composition.engine_spec())
    fetch = planned_steps.fetch(composition, source)
    speech, skipped = _speech(composition, spec.dimensions)
    chosen = _clips(composition.validation)
    precision = backend.checkpoint_precision(spec)
    keep = planned_steps.keep(spec, precision, fetch, _decided_on(composition, speech), chosen)
    convert = planned_steps.convert(spec, precision, (fetch, *keep), composition.calibration, speech)
    notes = [*notes, *skipped, *expectations.notes(spec, composition.calibration.method)]
    steps = [fetch, *keep, convert]
    if kit:
        kit.check_installed(spec)
        steps.append(planned_steps.pack(kit, spec, (convert, *keep)))
        if kit.needs_kit(spec):
            steps.append(planned_steps.kit(kit, spec, keep))
    if composition.stop_after not in ("fetch", "convert") and (not kit or kit.can_build(spec)):
        packed = next((step for step in steps if step.name == "pack"), convert)
        steps.append(planned_steps.build(spec, (packed, *keep)))
    if chosen and composition.stop_after is None:
        steps += planned_steps.validation(composition, spec, steps, chosen)
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


def _speech(composition: Composition, dimensions: Dimensions) -> tuple[list[Speech], list[str]]:
    """What is calibrated with, or decided on, and a warning about each clip that cannot be read."""
    calibration = composition.calibration
    if calibration.method == "none" and composition.precision.max_wer_delta is None:
        return [], []
    if calibration.clips:
        return calibrating_clips.from_manifest(sources.local(calibration.clips))
    return calibrating_clips.bundled_for(dimensions), []


def _decided_on(composition: Composition, speech: list[Speech]) -> list[Speech]:
    """What decides which layers keep 8 bits: every model is tried on it many times."""
    if composition.calibration.clips or composition.precision.max_wer_delta is None:
        return speech
    return calibrating_clips.bundled()[: calibrating_clips.SENTENCES]


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
