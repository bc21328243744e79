"""Calibrating in a process of its own, as validation listens.

There NumPy's BLAS has one thread: this process's own threads share the work by windows and layers, in a fixed order, so
that the sums, and with them the bytes, are the same however many there are.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_factory.engine_spec import Precision
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.progress import Progress
from whisper_factory.steps.listening import follow
from whisper_factory.whisper.checkpoint import Calibrated

DONE = re.compile(r"rounded \d+ of \d+\n")  # a line of the child
ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
CHILD = "import sys; sys.path[:] = {path!r}; from whisper_factory.calibration.worker import main; sys.exit(main())"


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
        asked, answer = Path(folder) / "asked.json", Path(folder) / "answer.safetensors"
        asked.write_text(json.dumps({"weights": str(weights), "kind": kind, "vocabulary": str(vocabulary),
                                     "precision": precision.to_dict(), "speech": list(speech), **calibration}),
                         encoding="utf-8")
        command = [sys.executable, "-c", CHILD.format(path=sys.path), str(asked), str(answer)]
        code, lines = follow([command], DONE, progress, "layers", layers, {**os.environ, **ONE_THREAD})
        if code == UserError.exit_code and lines:
            raise UserError(lines[-1].removeprefix("error: "))
        if code != 0:
            raise EnvironmentFault(f"the calibration failed (exit code {code}): {' | '.join(lines)}")
        integers, biases = worker.read(answer)
    about = {**calibration, "names": [one["name"] for one in speech]}
    return Calibrated(integers, biases, about)
