"""Calibrating, in a process of its own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_factory.engine_spec import Precision
from whisper_factory.progress import Progress
from whisper_factory.steps import child
from whisper_factory.whisper.checkpoint import Calibrated

DONE = re.compile(r"rounded \d+ of \d+\n")  # a line of the child


def calibrate(weights: Path, kind: str, layers: int, vocabulary: Path, precision: Precision,
              calibration: dict[str, Any], speech: Sequence[dict[str, Any]], scratch: Path,
              progress: Progress) -> Calibrated:
    """Integers, scales and biases for the weights that lie in a directory, as readers of their kind read them.

    Args:
        layers: how many linears the model has.
        precision: of 4 bits, with groups and layers that keep 8 bits as it says.
        calibration: method, seed, and the digest of the clips.
        speech: path, name, text and language of each clip.
        scratch: where the child's answer lies until it is read.

    Raises:
        UserError: clips or weights that cannot be used.
        EnvironmentFault: the child failed; carries its last lines.
    """
    from whisper_factory.calibration import worker

    with tempfile.TemporaryDirectory(dir=scratch.parent) as folder:
        answer = Path(folder) / "answer.safetensors"
        request = {"weights": str(weights), "kind": kind, "vocabulary": str(vocabulary),
                   "precision": precision.to_dict(), "speech": list(speech), **calibration}
        child.ask("whisper_factory.calibration.worker", request, answer, DONE, progress, "layers", layers,
                  "calibration")
        integers, biases = worker.read(answer)
    about = {**calibration, "names": [one["name"] for one in speech]}
    return Calibrated(integers, biases, about)
