"""Stand-ins for TensorRT's runtime and CUDA's, over ONNX Runtime and this process's memory: what they are given is
checked the way the real ones would, and more strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from whisper_factory.backends.cuda.device import Host
from whisper_factory.backends.onnx_graph.runtime import open_session

KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


class FakeCuda(Host):
    """Host memory that knows its blocks, and a stream whose captured work is not run."""

    def __init__(self) -> None:
        super().__init__()
        self.stream, self.capturing, self.failing = 77, False, False
        self.sizes: dict[int, int] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.recorded: list[Callable[[], None]] = []
        self.launched: list[int] = []

    def allocate(self, size: int) -> int:
        address = super().allocate(size)
        self.sizes[address] = size
        return address

    def room(self, address: int) -> int:
        """Bytes from an address to the end of its block; -1 if it is in none."""
        return max((start + size - address for start, size in self.sizes.items() if start <= address < start + size),
                   default=-1)

    def offset(self, address: int) -> int:
        """Bytes from the beginning of an address's block, of which CUDA's lie at multiples of 256."""
        return address - max(start for start in self.sizes if start <= address)

    def capture(self, work: Callable[[], bool]) -> int | None:
        self.recorded, self.capturing = [], True
        done = work()
        self.capturing = False
        if not done or self.failing:
            return None
        self.graphs[len(self.graphs) + 1] = self.recorded
        return len(self.graphs)

    def launch(self, graph: int) -> None:
        self.launched.append(graph)
        for work in self.graphs[graph]:
            work()

    def forget(self, graph: int) -> None:
        del self.graphs[graph]
        self.graphs[-graph] = []


class FakeContext:
    """An execution context: shapes within the engine's ranges, types and room for every tensor, on the right stream."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        assert self.engine.cuda.room(memory) >= size
        self.memory = memory, size

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.ranges[name]
        self.shapes[name] = shape
        return len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        assert self.engine.cuda.offset(address) % 256 == 0, f"{name} at {address:#x} is not aligned"
        return name in self.engine.inputs or name in self.engine.outputs

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.capturable

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        assert stream == engine.cuda.stream
        assert self.memory is not None
        assert not engine.orphaned, "the runtime must outlive its engines"
        assert self.addresses.keys() == {*engine.inputs, *engine.outputs}, "every tensor is bound"
        assert self.shapes.keys() == engine.inputs.keys()
        if engine.cuda.capturing:
            engine.cuda.recorded.append(self._work(dict(self.shapes), dict(self.addresses)))
        else:
            self._work(dict(self.shapes), dict(self.addresses))()
        engine.runs += not engine.cuda.capturing
        return not engine.broken

    def _work(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> Callable[[], None]:
        engine = self.engine

        def work() -> None:
            binding = engine.session.io_binding()
            for name, shape in shapes.items():
                self._fits(name, shape, addresses[name], engine.inputs[name])
                binding.bind_input(name, "cpu", 0, engine.inputs[name], shape, addresses[name])
            binding.bind_output(next(iter(engine.outputs)), "cpu")
            for name in engine.outputs:
                binding.bind_output(name, "cpu")
            engine.session.run_with_iobinding(binding)
            for name, value in zip(engine.outputs, binding.get_outputs(), strict=True):
                found = value.numpy()
                self._fits(name, found.shape, addresses[name], engine.outputs[name])
                engine.cuda.upload(addresses[name], np.ascontiguousarray(found))

        return work

    def _fits(self, name: str, shape: tuple[int, ...], address: int, kind: type[np.generic]) -> None:
        room = self.engine.cuda.room(address)
        assert room >= int(np.prod(shape)) * np.dtype(kind).itemsize, f"{name} at {address:#x} has {room} bytes"


class FakeEngine:
    """An engine whose bytes are the path of its graph."""

    def __init__(self, graph: Path, ranges: Any, cuda: FakeCuda) -> None:
        self.session: onnxruntime.InferenceSession = open_session(graph, 1, fuse_dequantizing=False)
        self.ranges, self.cuda = ranges[graph.stem], cuda
        self.inputs = {value.name: KINDS[value.type] for value in self.session.get_inputs()}
        self.outputs = {value.name: KINDS[value.type] for value in self.session.get_outputs()}
        self.device_memory_size_v2 = 1000 if graph.stem == "encoder" else 2000
        self.capturable, self.broken, self.runs = True, False, 0
        self.orphaned = False  # its runtime is gone
        self.contexts: list[FakeContext] = []

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda strategy: None)

    def create_execution_context(self, how: Any) -> FakeContext:
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


def module(ranges: Any, cuda: FakeCuda, loaded: list[FakeEngine]) -> Any:
    """The Python module, as far as running needs it."""
    class ILogger:
        pass

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def __del__(self) -> None:
            for engine in loaded:
                engine.orphaned = True

        def deserialize_cuda_engine(self, data: bytes) -> FakeEngine | None:
            if data == b"damaged":
                self.logger.log(SimpleNamespace(__str__=lambda: ""), "never heard")
                self.logger.log("Severity.ERROR", "the plan is damaged")
                return None
            loaded.append(FakeEngine(Path(data.decode()), ranges, cuda))
            return loaded[-1]

    return SimpleNamespace(
        ILogger=ILogger, Runtime=Runtime, __version__="1.7.1.116",
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )
