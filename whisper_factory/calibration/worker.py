"""A calibration from a request to its answer: what the process that convert starts does.

ASKED.json: weights and kind (as readers take them), vocabulary, precision, method, seed, speech (path, name, text,
language).
ANSWER.safetensors: for each linear of 4 bits X.weight int8 [out, in] and X.scale float32 [out], or [out, groups], and
the X.bias that changed.
A line "rounded 3 of 64" is printed for each layer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory import console, safetensors_io
from whisper_factory.calibration.clips import Speech
from whisper_factory.calibration.passing import Calibrated, calibrate
from whisper_factory.calibration.speech import windows
from whisper_factory.engine_spec import Precision
from whisper_factory.whisper import readers
from whisper_factory.whisper.checkpoint import cast, scale_name
from whisper_factory.whisper.readers import Weights
from whisper_factory.whisper.tensors import is_quantized
from whisper_factory.whisper.tokenizer import Tokenizer

Integers = dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]


def main() -> int:
    """Run it on sys.argv's two paths; returns the exit code."""
    asked, answer = map(Path, sys.argv[1:3])
    return console.run(lambda: write(answer, run(json.loads(asked.read_text(encoding="utf-8")))), interrupted="")


def run(asked: dict[str, Any]) -> Calibrated:
    """The calibration of a request.

    Raises:
        UserError: weights or clips that cannot be used.
    """
    weights = readers.read(Path(asked["weights"]), asked["kind"])
    tensors = as_stored(weights)
    tokenizer = Tokenizer.load(Path(asked["vocabulary"]), weights.dimensions)
    speech = [Speech(Path(one["path"]), one["name"], one["text"], one["language"]) for one in asked["speech"]]
    taught = windows(speech, tensors, weights.dimensions, tokenizer, asked["seed"])
    layers, done = sum(map(is_quantized, tensors)), 0

    def told(amount: float) -> None:
        nonlocal done
        for _ in range(round(amount)):  # none or several, where layers keep 8 bits
            done += 1
            print(f"rounded {done} of {layers}", flush=True)

    return calibrate(tensors, weights.dimensions, taught, asked["method"], told,
                     Precision.from_dict(asked["precision"]))


def as_stored(weights: Weights) -> dict[str, NDArray[np.float32]]:
    """The tensors that a checkpoint of float16 would hold, in float32: so every source of a model gives the same.

    Raises:
        UserError: a tensor holds NaN or infinity, or values that float16 cannot hold.
    """
    return {name: cast(name, array, np.float16).astype(np.float32) for name, array in weights.tensors.items()}


def write(path: Path, found: Calibrated) -> None:
    """Keep an answer."""
    tensors: dict[str, NDArray[Any]] = dict(found.biases)
    for name, rounded in found.rounded.items():
        tensors |= {f"{name}.weight": rounded.q, f"{name}.scale": rounded.scale}
    layout = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    safetensors_io.write(path, layout, tensors.items())


def read(path: Path) -> tuple[Integers, dict[str, NDArray[np.float32]]]:
    """An answer's integers and scales by X.weight, and its biases; copies, for the file may go."""
    tensors = safetensors_io.Tensors(path)
    integers = {name: (np.array(tensors[name]), np.array(tensors[scale_name(name)])) for name in tensors
                if name.endswith(".weight")}
    return integers, {name: np.array(tensors[name]) for name in tensors if name.endswith(".bias")}
