"""build: checkpoint -> engine, by the composition's backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory import backends
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.steps import keep
from whisper_factory.steps.context import Context

if TYPE_CHECKING:
    from whisper_factory.planned_steps import PlannedStep

VERSION = 1


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with an engine directory."""
    spec = keep.settled(EngineSpec.from_dict(step.params["spec"]), inputs)
    source = inputs["pack"] if "pack" in inputs else inputs["convert"]
    backends.get(spec.backend).build(source, spec, out, context.say, context.failures, context.progress,
                                     context.caches)
