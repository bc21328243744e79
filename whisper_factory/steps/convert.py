"""convert: weights from any source -> one canonical checkpoint, quantised as the precision says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.engine_spec import Precision
from whisper_factory.progress import Progress, silent
from whisper_factory.steps import keep
from whisper_factory.steps.context import Context
from whisper_factory.steps.fetch import VOCABULARY, as_given, source
from whisper_factory.whisper.dimensions import Dimensions

if TYPE_CHECKING:
    from whisper_factory.planned_steps import PlannedStep
    from whisper_factory.sources import ReaderKind
    from whisper_factory.whisper.readers import Weights

VERSION = 1


def tools() -> dict[str, str]:
    """Versions of what writes the checkpoint's bytes, read without importing it."""
    return {"numpy": version("numpy")}


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with a checkpoint directory.

    Raises:
        UserError: weights that cannot be read, or that are not those of the model that was declared.
    """
    params = step.params
    precision = keep.precision(Precision.from_dict(params["precision"]), inputs)
    with as_given(step, inputs["fetch"]):
        checkpoint(inputs["fetch"], params["kind"], out, params["model"], Dimensions(**params["dimensions"]),
                   precision, context.progress, params.get("calibration"), step.hints.get("speech", []))


def checked(fetched: Path, kind: ReaderKind, model: str, dimensions: Dimensions) -> Weights:
    """What fetch left, held against the model's dimensions."""
    from whisper_factory.whisper import readers

    weights = readers.read(source(fetched, kind), kind)
    readers.check(weights, dimensions, model)
    return weights


def checkpoint(fetched: Path, kind: ReaderKind, out: Path, model: str, dimensions: Dimensions,
               precision: Precision, progress: Progress = silent, calibration: dict[str, Any] | None = None,
               speech: Sequence[dict[str, Any]] = ()) -> None:
    """Read what fetch left, check it against the model's dimensions, and write the canonical checkpoint.

    Args:
        calibration: method, seed, and the digest of the clips; None: weights are rounded as they are.
        speech: the clips to calibrate with.
    """
    from whisper_factory.whisper.checkpoint import write_checkpoint
    from whisper_factory.whisper.tensors import is_quantized

    weights = checked(fetched, kind, model, dimensions)
    calibrated = None
    if calibration:
        from whisper_factory.steps import calibrating

        layers = sum(map(is_quantized, weights.tensors))
        calibrated = calibrating.calibrate(source(fetched, kind), kind, layers, fetched / VOCABULARY, precision,
                                           calibration, speech, out, progress)
    write_checkpoint(out, model, precision, weights, progress, calibrated)
    shutil.copyfile(fetched / VOCABULARY, out / VOCABULARY)
