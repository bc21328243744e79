"""pack: canonical checkpoint -> the checkpoint format of a toolkit that builds elsewhere."""

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
    """Fill `out` with the packed checkpoint, its stamp and the vocabulary."""
    kit = backends.kit(step.params["backend"])
    assert kit is not None
    spec = keep.settled(EngineSpec.from_dict(step.hints["spec"]), inputs)
    kit.pack(inputs["convert"], spec, out, context.say, context.progress)
