"""Writing an ONNX graph node by node, its weights in a file beside it. No tracing, no model code.

Facts used: the ONNX specification (IR 9 is what opset 20 came with; opset 20 is the first with Gelu, opset 21 with
IR 10 the first with 4-bit integers and scales for blocks), and its rule for external data: a tensor names a file next
to the model, an offset and a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, ValueInfoProto

OPSET = 20
BLOCKED_OPSET = 21  # the first with 4-bit integers, and scales for blocks
IR_VERSIONS = {20: 9, 21: 10}
FLOAT32, INT32, INT64, FLOAT16, INT4 = 1, 6, 7, 10, 22  # ONNX element types, as Cast names them
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators, version 1
PAGE = 4096  # large tensors start on a page, so that a runtime can map them
SMALL_ALIGNMENT = 64

Shape: TypeAlias = "Sequence[int | str]"


class Region(NamedTuple):
    """Where a tensor lies: a file next to the model, and bytes in it."""

    location: str
    offset: int
    length: int


class WeightFile:
    """The external data of one graph, written as it comes: no more than one tensor is in memory."""

    def __init__(self, path: Path) -> None:
        self.location = path.name
        self._file: IO[bytes] = path.open("wb")

    def append(self, array: NDArray[Any]) -> Region:
        """Write an array in C order, little endian."""
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        alignment = PAGE if data.nbytes >= PAGE else SMALL_ALIGNMENT
        offset = -(-self._file.tell() // alignment) * alignment
        self._file.write(b"\0" * (offset - self._file.tell()))
        self._file.write(data.data.cast("B"))
        return Region(self.location, offset, data.nbytes)

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()


class Graph:
    """An ONNX graph under construction. Tensors are their names; a node is named after its first output."""

    def __init__(self, name: str, weights: WeightFile, opset: int = OPSET, contrib: bool = True) -> None:
        """
        Args:
            contrib: whether ONNX Runtime's own operators may be used.
        """
        self.name = name
        self.weights = weights
        self._opset, self._contrib = opset, contrib
        self._nodes: list[NodeProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._tensors: dict[str, TensorProto] = {}

    def input(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        """Declare an input; a string in `shape` is a dimension known only at run time."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        """Declare that tensor `name`, made by some node, is an output."""
        self._outputs.append(_value(name, dtype, shape))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; "" among the inputs leaves an optional one out."""
        self.nodes(kind, inputs, [output], domain, **attributes)
        return output

    def nodes(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "",
              **attributes: Any) -> Sequence[str]:
        """Add a node with several outputs."""
        from onnx import helper

        self._nodes.append(helper.make_node(kind, list(inputs), list(outputs), name=outputs[0],
                                            domain=domain, **attributes))
        return outputs

    def ints(self, *values: int) -> str:
        """A constant int64 vector inside the graph (shapes, axes, bounds); equal ones are one tensor."""
        name = "ints_" + "_".join(str(value).replace("-", "minus") for value in values)
        return self._small(name, np.array(values, np.int64))

    def index(self, value: int) -> str:
        """A constant int64 scalar inside the graph."""
        return self._small("index_" + str(value).replace("-", "minus"), np.array(value, np.int64))

    def scalar(self, value: float, dtype: type[np.generic]) -> str:
        """A constant scalar inside the graph."""
        return self._small(f"scalar_{value}_{np.dtype(dtype).name}", np.array(value, dtype))

    def _small(self, name: str, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._tensors:
            self._tensors[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """A constant in the weight file."""
        return self.external(name, array.dtype, array.shape, self.weights.append(array))

    def external(self, name: str, dtype: np.dtype[Any] | int, shape: Sequence[int], region: Region) -> str:
        """A constant whose bytes lie in a file already, perhaps under another name and shape too.

        Args:
            dtype: NumPy's, or the number of an ONNX element type that NumPy has not.
        """
        from onnx import TensorProto, helper

        if name in self._tensors:
            raise ValueError(f"two constants named {name}")
        kind = dtype if isinstance(dtype, int) else helper.np_dtype_to_tensor_dtype(dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in zip(("location", "offset", "length"), region, strict=True):
            tensor.external_data.add(key=key, value=str(value))
        self._tensors[name] = tensor
        return name

    def region(self, name: str) -> Region:
        """Where the bytes of a constant in the weight file lie."""
        entries = {entry.key: entry.value for entry in self._tensors[name].external_data}
        return Region(entries["location"], int(entries["offset"]), int(entries["length"]))

    def save(self, path: Path, leave_out: Sequence[str] = ()) -> None:
        """Write the model; equal graphs give equal bytes.

        Args:
            leave_out: outputs that this file does not have.
        """
        from onnx import helper

        outputs = [value for value in self._outputs if value.name not in leave_out]
        graph = helper.make_graph(self._nodes, self.name, self._inputs, outputs, list(self._tensors.values()))
        opsets = [helper.make_opsetid("", self._opset)]
        if self._contrib:
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[self._opset],
                                  producer_name="whisper-factory")
        path.write_bytes(model.SerializeToString(deterministic=True))


def _value(name: str, dtype: type[np.generic], shape: Shape) -> ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
