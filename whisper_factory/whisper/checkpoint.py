"""The canonical checkpoint: what convert writes and every backend builds from.

    config.json         {"format": 1, "model", "dimensions", "precision"}, and "calibration" where there was one
    model.safetensors   OpenAI's tensor names; a quantised X.weight has X.scale beside it

A quantised X.weight is int8 [out, in], or uint8 [out, in / 2] with two 4-bit integers a byte, and X.scale is
float32 [out], or [out, groups] where neighbours of a row share one (quantization/weight_only.py and groups.py have the
definitions). Layers that the precision keeps are int8 with a scale a row. Everything else is of the precision's dtype.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from whisper_factory import safetensors_io, threads
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.progress import BYTES, Advance, Progress, silent
from whisper_factory.quantization import groups, weight_only
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights
from whisper_factory.whisper.tensors import is_quantized, tensor_shapes

FORMAT = 1
CONFIG = "config.json"
TENSORS = "model.safetensors"

_PIECE = 1 << 17  # values


def scale_name(name: str) -> str:
    """X.scale for X.weight."""
    return name.removesuffix(".weight") + ".scale"


def layer_name(name: str) -> str:
    """X for X.weight."""
    return name.removesuffix(".weight")


@dataclass(frozen=True)
class Calibrated:
    """What a calibration chose for the weights of a model."""

    integers: Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]]  # of X.weight: [out, in] in [-8, 7], [out]
    biases: Mapping[str, NDArray[np.float32]]
    about: Mapping[str, Any]  # how: the method, and the digest and the names of the clips


def write_checkpoint(directory: Path, model: str, precision: Precision, weights: Weights,
                     progress: Progress = silent, calibrated: Calibrated | None = None) -> None:
    """Write a checkpoint into `directory` (made if missing), the same bytes for the same weights.

    Integers are made from float16-rounded weights, so that a float16 and a float32 source of one model
    give the same ones. A few tensors are in memory at a time. Weights must have passed `readers.check`.

    Args:
        progress: of the bytes.
        calibrated: integers, scales and biases to write instead of those that the weights alone make.

    Raises:
        UserError: a tensor holds NaN or infinity, or values that float16 cannot hold.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "model": model,
        "dimensions": asdict(weights.dimensions),
        "precision": precision.to_dict(),
    }
    if calibrated:
        config["calibration"] = calibrated.about
        weights = Weights(weights.dimensions, {**weights.tensors, **calibrated.biases})
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (directory / CONFIG).write_text(text, encoding="utf-8")
    shapes = tensor_shapes(weights.dimensions)
    layout = _layout(shapes, precision)
    with progress(safetensors_io.size(layout), BYTES) as advance:
        stored = _stored(weights, sorted(shapes), precision, advance, calibrated)
        safetensors_io.write(directory / TENSORS, layout, stored)


def _layout(shapes: Mapping[str, tuple[int, ...]], precision: Precision) -> safetensors_io.Layout:
    layout: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if not (precision.bits and is_quantized(name)):
            layout[name] = (precision.dtype, shape)
            continue
        rows, columns = shape
        layer = layer_name(name)
        layout[name] = ("int8", shape) if precision.bits_of(layer) == 8 else ("uint8", (rows, columns // 2))
        scales = precision.scales_of(layer, columns)
        layout[scale_name(name)] = ("float32", (rows, scales) if _grouped(precision, layer) else (rows,))
    return layout


def _grouped(precision: Precision, layer: str) -> int:
    """The size of the groups of a layer's rows; 0: it has a scale a row."""
    return 0 if layer in precision.keep else precision.group_size


def _stored(weights: Weights, names: list[str], precision: Precision, advance: Advance,
            calibrated: Calibrated | None) -> Iterator[tuple[str, NDArray[Any]]]:
    def made(name: str) -> list[tuple[str, NDArray[Any]]]:
        value = cast(name, weights.tensors[name], precision.dtype)
        if calibrated and name in calibrated.integers:
            q, scale = calibrated.integers[name]
            return [(name, weight_only.pack_int4(q)), (scale_name(name), scale)]
        if not (precision.bits and is_quantized(name)):
            return [(name, value)]
        layer = layer_name(name)
        q, scale = quantize(value, precision, layer)
        return [(name, q if precision.bits_of(layer) == 8 else weight_only.pack_int4(q)), (scale_name(name), scale)]

    for tensors in threads.ahead(made, names):
        yield from tensors
        advance(sum(array.nbytes for _, array in tensors))  # they are written: the next ones were asked for


def quantize(weight: NDArray[Any], precision: Precision, layer: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A layer's weight [out, in] as (q int8 [out, in], s float32 [out] or [out, groups]), as a precision has it."""
    bits, size = precision.bits_of(layer), _grouped(precision, layer)
    return groups.quantize(weight, bits, size) if size else weight_only.quantize(weight, bits)


def cast(name: str, array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """A tensor as a checkpoint holds it.

    Raises:
        UserError: it holds NaN or infinity, or values that float16 cannot hold.
    """
    with np.errstate(over="ignore"):  # looked for below, and said with the tensor's name
        value: NDArray[Any] = array.astype(dtype, copy=False)
    if _is_finite(value):
        return value
    if not np.isfinite(array).all():
        raise UserError(f"tensor {name} holds NaN or infinity: the weights are damaged; get them again")
    largest = float(np.abs(array).max())
    raise UserError(f"tensor {name} holds {largest:.6g}, more than float16 can (65504); use precision=float32")


def _is_finite(value: NDArray[Any]) -> bool:
    """In pieces, since fresh memory for a large tensor costs more than the looking; by its bits if it is float16."""
    flat = value.reshape(-1)
    pieces = (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
    if value.dtype != np.float16:
        return all(np.isfinite(piece).all() for piece in pieces)
    return all((piece.view(np.uint16) & np.uint16(0x7FFF)).max() < 0x7C00 for piece in pieces)


class _Cast(Mapping[str, NDArray[Any]]):
    """Weights as a checkpoint of floats holds them, cast when they are asked for."""

    def __init__(self, weights: Weights, dtype: DTypeLike) -> None:
        self._weights, self._dtype = weights.tensors, dtype

    def __getitem__(self, name: str) -> NDArray[Any]:
        return cast(name, self._weights[name], self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint directory. Nothing is read from disk until a tensor is asked for."""

    model: str
    dimensions: Dimensions
    precision: Precision
    raw: Mapping[str, NDArray[Any]]  # what is stored, read-only: packed integers and scales included

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Open a directory that `write_checkpoint` made.

        Raises:
            UserError: there is no checkpoint in it, or one of another format, or with other tensors.
        """
        path = directory / CONFIG
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            if config["format"] != FORMAT:
                raise UserError(f"{path}: checkpoint format {config['format']}, this version reads {FORMAT}; "
                                "convert it again")
            dimensions, precision = Dimensions(**config["dimensions"]), Precision.from_dict(config["precision"])
            raw = safetensors_io.Tensors(directory / TENSORS)
            model = str(config["model"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"'{directory}' is not a checkpoint directory ({reason}); convert makes one") from error
        expected = _layout(tensor_shapes(dimensions), precision)
        wrong = sorted(expected.keys() ^ raw.keys())
        wrong += [name for name, (dtype, shape) in sorted(expected.items())
                  if name in raw and (raw[name].dtype != dtype or raw[name].shape != shape)]
        if wrong:
            raise UserError(f"'{directory}': its tensors are not those of its {CONFIG} ({', '.join(wrong)}); "
                            "convert it again")
        return cls(model, dimensions, precision, raw)

    @classmethod
    def unwritten(cls, model: str, precision: Precision, weights: Weights) -> Checkpoint:
        """What `open` gives of what `write_checkpoint` makes of weights in a precision of floats, without the file.

        Weights must have passed `readers.check`. What `write_checkpoint` refuses is refused when it is asked for.
        """
        assert not precision.bits
        return cls(model, weights.dimensions, precision, _Cast(weights, precision.dtype))

    def tensor(self, name: str) -> NDArray[Any]:
        """A tensor by OpenAI's name: of the precision's dtype, or float32 where it is dequantised."""
        stored = self.quantized(name)
        return self.raw[name] if stored is None else weight_only.dequantize(*stored)

    def quantized(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
        """The integers int8 [out, in] (unpacked) of X.weight, and its scales float32 [out], or [out, groups]; None if
        it is a float."""
        if not (self.precision.bits and is_quantized(name)):
            return None
        q = self.raw[name]
        eight = self.precision.bits_of(layer_name(name)) == 8
        return (q if eight else weight_only.unpack_int4(q)), self.raw[scale_name(name)]
