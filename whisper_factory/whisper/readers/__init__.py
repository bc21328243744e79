"""Readers of Whisper weights: OpenAI's .pt, Hugging Face directories, CTranslate2's model.bin; and random ones.

Every reader gives the same thing: the ten dimensions and the tensors under OpenAI's names, in the
source's own float type. Arrays may be read-only views of a mapped file, so treat them as constants.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from whisper_factory.errors import UserError, choices
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tensors import tensor_shapes

Kind = Literal["openai", "huggingface", "ctranslate2", "random"]
KINDS: tuple[Kind, ...] = ("openai", "huggingface", "ctranslate2", "random")


@dataclass(frozen=True)
class Weights:
    """A model's weights: float16 or float32 tensors under OpenAI's names, linears as [out, in]."""

    dimensions: Dimensions
    tensors: Mapping[str, NDArray[Any]]


def read(path: Path, kind: Kind) -> Weights:
    """Read weights from a .pt file ("openai") or a directory ("huggingface", "ctranslate2", "random").

    Raises:
        UserError: the file is missing, damaged, or of a kind that cannot be used.
        EnvironmentFault: a library that the format needs is not installed.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of weights '{kind}'; {choices(kind, KINDS)}")
    if not path.exists():
        raise UserError(f"no such file or directory: '{path}'; give weights.path something that exists")
    module = importlib.import_module(f"{__name__}.{kind}")
    weights: Weights = module.read(path)
    return weights


def check(weights: Weights, expected: Dimensions, model: str) -> None:
    """Compare weights with what the model's configuration says, and with themselves.

    Shapes are held against the weights' own dimensions, so that the wrong model is one complaint about
    each dimension and not one about each tensor.

    Raises:
        UserError: every difference, in one line.
    """
    found, wanted = asdict(weights.dimensions), asdict(expected)
    problems = [f"{name} is {found[name]}, model '{model}' says {wanted[name]}"
                for name in wanted if found[name] != wanted[name]]
    shapes = tensor_shapes(weights.dimensions)
    problems += [f"{name} is missing" for name in shapes if name not in weights.tensors]
    problems += [f"{name} is not part of a Whisper model" for name in sorted(weights.tensors) if name not in shapes]
    for name, shape in shapes.items():
        array = weights.tensors.get(name)
        if array is not None and array.shape != shape:
            problems.append(f"{name} has shape {list(array.shape)}, not {list(shape)}")
        if array is not None and array.dtype not in ("float16", "float32"):
            problems.append(f"{name} is {array.dtype}, not float16 or float32")
    if problems:
        raise UserError(f"these weights are not those of model '{model}': {'; '.join(problems)}")
