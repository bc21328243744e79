"""Reads OpenAI's .pt files, with torch's weights_only=True and nothing else."""

from __future__ import annotations

import gc
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights

# Not weights: the causal mask (old checkpoints kept it) and which heads follow the audio (newer ones do).
EXTRAS = ("decoder.mask", "encoder.mask", "alignment_heads", "decoder.alignment_heads")


def read(path: Path) -> Weights:
    """Read a checkpoint {"dims": ..., "model_state_dict": ...}; bfloat16 arrives as float32.

    Raises:
        UserError: the file is damaged, is no such checkpoint, or its pickle asks for more than tensors.
        EnvironmentFault: torch is not installed.
    """
    checkpoint = _load(path)
    try:
        dimensions = Dimensions(**{field.name: int(checkpoint["dims"][field.name]) for field in fields(Dimensions)})
        tensors = dict(_tensors(checkpoint["model_state_dict"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"'{path}' is not an OpenAI Whisper checkpoint (a dictionary with the ten 'dims' and a "
                        f"'model_state_dict' of tensors): {type(error).__name__}: {error}") from error
    return Weights(dimensions, tensors)


def _load(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise EnvironmentFault(f"reading '{path}' needs torch, which is not installed; pip install "
                               "'whisper-factory[openai]', or use weights=package or weights=huggingface") from error
    gc.freeze()  # torch's many objects live as long as the process: looking through them took a fifth of a conversion
    try:
        with warnings.catch_warnings():  # what torch would warn of is an error below
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile file may raise anything in torch's unpickler
        said = re.search(r"GLOBAL ([\w.]+)", str(error))
        refused = said[1] if said else _foreign_global(path)
        if refused:
            raise UserError(f"'{path}' is refused: its pickle asks for {refused}, and weights hold only tensors; "
                            "do not open it with anything else, get the weights from their source") from error
        reason = str(error).strip().split("\n")[0][:120]
        raise UserError(f"'{path}' is not a PyTorch checkpoint, or is cut short ({type(error).__name__}: {reason}); "
                        "get it again") from error


def _foreign_global(path: Path) -> str | None:
    """The first name outside torch that a bare pickle asks for, found without running it.

    torch stops at some pickles before it comes to the name (those of a newer protocol, say).
    """
    words: list[str] = []
    try:
        with path.open("rb") as file:
            beginning = file.read(1 << 24)
        for operation, argument, _ in pickletools.genops(beginning):
            if isinstance(argument, str) and operation.name != "GLOBAL":
                words.append(argument)
            elif operation.name in ("GLOBAL", "STACK_GLOBAL"):
                name = ".".join(str(argument).split(" ") if argument else words[-2:])
                if not name.startswith(("torch.", "collections.")):
                    return name
    except (ValueError, IndexError, UnicodeError, OverflowError):  # not a pickle, or not whole
        pass
    return None


def _tensors(state: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    import torch

    for name, tensor in state.items():
        if name in EXTRAS:
            continue
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise TypeError(f"{name} is not a plain tensor")
        if tensor.dtype == torch.bfloat16:  # numpy has none
            tensor = tensor.float()
        yield name, np.asarray(tensor.detach().numpy())
