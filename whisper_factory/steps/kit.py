"""kit: what a device needs beside the packed checkpoint to build an engine from it."""

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
    """Fill `out` with build.sh, requirements.txt and runtime/."""
    spec = keep.settled(EngineSpec.from_dict(step.params["spec"]), inputs)
    kit = backends.kit(spec.backend)
    assert kit is not None
    kit.write_kit(spec, out)
