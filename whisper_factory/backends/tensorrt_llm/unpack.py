"""The way back: the weights that a packed checkpoint stands for, under OpenAI's names.

What is read here is what the device will multiply by: the packed integers, and the scales as they are stored, rounded
to float16. So running them on a CPU says how well the engine will hear before there is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from whisper_factory import safetensors_io
from whisper_factory.backends.tensorrt_llm import configs, layout, names, stamp, versions
from whisper_factory.backends.tensorrt_llm.families import Family
from whisper_factory.backends.tensorrt_llm.names import Stored
from whisper_factory.errors import UserError
from whisper_factory.quantization import weight_only
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights

Integers = tuple[NDArray[np.int8], NDArray[np.float16]]
T = TypeVar("T")


def read(directory: Path) -> Weights:
    """The weights of a directory that `packing.write` filled, each made when it is asked for.

    Quantised matrices are dequantised to float32; where trtllm-build will quantise, they are first quantised as it
    will. The rest is as stored: float16, and the float32 sinusoid table. The key's zero bias and the output head, a
    copy of the token embedding, are left out.

    Raises:
        UserError: the directory or its stamp is not of this tool, or a file is not the one that was stamped.
    """
    packed = _Packed(directory)
    return Weights(packed.dimensions, _Lazily(packed.places, packed.weight))


def integers(directory: Path) -> Mapping[str, Integers]:
    """The integers int8 [out, in] and scales float16 [out] of every quantised matrix, by OpenAI's name.

    Empty where the checkpoint has no quant_algo. Raises as `read`.
    """
    packed = _Packed(directory)
    matrices = [name for name, (_, tensor, _) in packed.places.items() if packed.bits and tensor.quantized]
    return _Lazily(matrices, packed.integers)


class _Lazily(Mapping[str, T]):
    """Values made anew each time they are asked for, so that one at a time is in memory."""

    def __init__(self, keys: Any, make: Callable[[str], T]):
        self._keys, self._make = dict.fromkeys(keys), make

    def __getitem__(self, name: str) -> T:
        if name not in self._keys:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class _Packed:
    """A checkpoint directory, checked and opened."""

    dimensions: Dimensions
    bits: int  # 0: floats are meant to stay floats
    layout: str  # sm80, sm90, or none: floats are stored
    places: dict[str, tuple[names.Part, Stored, int]]  # OpenAI's name -> where it is, and which of the stacked rows

    def __init__(self, directory: Path):
        about = stamp.read_stamp(directory)
        stamp.verify(directory, about)
        try:
            read = [json.loads((directory / part / stamp.CONFIG).read_text(encoding="utf-8")) for part in names.PARTS]
            self.dimensions = configs.dimensions(*read)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{directory}' does not hold the configs of a Whisper model ({type(error).__name__}: "
                            f"{error}); convert it again") from error
        self.bits, self.layout = configs.bits(about["quant_algo"]), about["layout"]
        self._raw = {part: safetensors_io.Tensors(directory / part / stamp.TENSORS) for part in names.PARTS}
        generation = versions.parse(about["version"]).generation
        self.places = {
            source: (part, tensor, row)
            for part in names.PARTS for tensor in names.stored(part, generation, self.dimensions) if not tensor.is_copy
            for row, source in enumerate(tensor.sources) if source
        }
        missing = sorted(tensor.name for part, tensor, _ in self.places.values() if tensor.name not in self._raw[part])
        if missing:
            raise UserError(f"'{directory}' lacks {', '.join(dict.fromkeys(missing))}; convert it again")

    def weight(self, name: str) -> NDArray[Any]:
        """A tensor by OpenAI's name, as `read` promises it."""
        part, tensor, _ = self.places[name]
        if self.bits and tensor.quantized:
            q, scale = self.integers(name)
            return weight_only.dequantize(q, scale.astype(np.float32))
        value = self._rows(name, self._raw[part][tensor.name])
        return value[..., 0] if tensor.has_trailing_axis else value

    def integers(self, name: str) -> Integers:
        """The integers [out, in] and scales [out] of a quantised matrix."""
        part, tensor, _ = self.places[name]
        stored = self._raw[part][tensor.name]
        if self.layout == "none":
            q, scale = weight_only.quantize(self._rows(name, stored), self.bits)
            return q, scale.astype(np.float16)
        columns = stored.shape[0]
        rows = self._rows(name, stored.reshape(stored.shape[1] * 8 // self.bits, -1))  # a matrix's bytes lie together
        matrix = rows.reshape(layout.packed_shape(rows.shape[0], columns, self.bits))
        family: Family = "sm80" if self.layout == "sm80" else "sm90"
        return layout.unpack(matrix, self.bits, family), self._rows(name, self._raw[part][tensor.scale_name])

    def _rows(self, name: str, stacked: NDArray[Any]) -> NDArray[Any]:
        """Those rows of a stacked tensor that are this name's."""
        _, tensor, row = self.places[name]
        each = stacked.shape[0] // len(tensor.sources)
        return stacked[row * each : (row + 1) * each]
