"""What runs an engine's stages, and the tensors that they are bound to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.device import Tensor

FLOAT, INT32, INT64 = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64)


class Bound(Protocol):
    """A stage whose inputs and outputs are bound."""

    def run(self) -> None:
        """Set the device to work on it, after what it was asked before."""

    def rehearse(self) -> None:
        """Run it as often as it takes to be fast from then on: what its outputs hold after that is anything."""


class Executor(Protocol):
    """What runs stages."""

    def bind(self, stage: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor],
             given: Mapping[str, NDArray[Any]], repeats: bool = False) -> Bound:
        """Bind a stage to tensors in the device's memory.

        Args:
            given: inputs that the host holds, and keeps as they are.
            repeats: whether it runs often enough to be worth a rehearsal.
        """


def part(tensor: Tensor, first: int, count: int) -> Tensor:
    """Some of a tensor's first axis."""
    each = int(np.prod(tensor.shape[1:])) * tensor.dtype.itemsize
    return Tensor(tensor.address + first * each, (count, *tensor.shape[1:]), tensor.dtype)
