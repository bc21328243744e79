"""Which GPUs share a packed layout, and so what convert must hand to the packer. Imports no NumPy: the plan asks."""

from __future__ import annotations

import re
from typing import Literal

from whisper_factory.backends.tensorrt_llm.versions import Release
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError

Family = Literal["sm80", "sm90"]

_CAPABILITY = re.compile(r"([1-9]\d*)\.(0|[1-9]\d*)", re.ASCII)  # as CUDA spells it: they are compared as text


def family(compute_capability: str, release: Release) -> Family | None:
    """The packed layout for a GPU ("8.7"), or None where only trtllm-build itself knows it.

    Raises:
        UserError: not a compute capability.
    """
    found = _CAPABILITY.fullmatch(compute_capability)
    if not found:
        raise UserError(f"compute capability '{compute_capability}' is not two numbers and a dot, as in 8.7")
    major, minor = int(found[1]), int(found[2])
    if (7, 5) <= (major, minor) <= (8, 9):
        return "sm80"
    known = release.at_least(0, 12) and not release.at_least(0, 16)  # from 0.16 on it changed more than once
    return "sm90" if (major, minor) == (9, 0) and known else None


def checkpoint_precision(precision: Precision, compute_capability: str, release: Release) -> Precision:
    """The precision of the canonical checkpoint that an engine of `precision` is packed from.

    That is `precision` itself, or float16 where the integers' layout is not known: trtllm-build then quantises.

    Raises:
        UserError: float32, which the plugins of upstream's Whisper do not take; or not a compute capability.
    """
    if precision.dtype != "float16":
        raise UserError(f"precision={precision.name} is not for backend=tensorrt_llm; choices: float16, int8, int4")
    if precision.bits and family(compute_capability, release) is None:
        return Precision("float16", 0, "float16")
    return precision
