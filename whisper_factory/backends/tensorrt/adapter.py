"""TensorRT's Python module, whichever flavour of it: all that differs between them stands here.

TensorRT for RTX was tried (1.7.1.116: building, on a machine without a GPU). What is said of the full TensorRT (10.3 on
JetPack 6.1, 10.x and 11.x elsewhere), and of running engines, follows NVIDIA's documentation of the Python API.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whisper_factory.backends.cuda import cudart
from whisper_factory.backends.tensorrt.flavours import RTX, Flavour
from whisper_factory.errors import EnvironmentFault

ERRORS = ("ERROR", "INTERNAL_ERROR")
Line = Callable[[str, str], None]  # severity, text


class Library:
    """The module, and how it is used."""

    def __init__(self, flavour: Flavour) -> None:
        """
        Raises:
            EnvironmentFault: it cannot be imported.
        """
        cudart.library()  # before the import, which needs it loaded
        self.flavour = flavour
        self.trt: Any = _import(flavour)
        self._errors: list[str] = []
        self._runtime: Any = None

    def logger(self, line: Line) -> Any:
        """A logger that hands every message on: nothing of TensorRT's goes to the screen."""
        trt = self.trt

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                line(str(severity).rpartition(".")[2], message)

        return Logger()

    def heard(self, severity: str, text: str) -> None:
        """A line for `logger` that keeps the last errors for `said`."""
        if severity in ERRORS:
            self._errors = [*self._errors[-2:], " ".join(text.split())]

    def said(self) -> str:
        """The last errors that `heard` was told of."""
        return "; ".join(self._errors)[:400] or "it did not say why"

    def network(self, builder: Any) -> Any:
        """An empty network in which every type is the one that is computed in. From 11.0 on there is no other kind."""
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return builder.create_network(0 if flag is None else 1 << int(flag))

    def declare_target(self, config: Any, compute_capability: str) -> None:
        """TensorRT for RTX builds for the GPU it is told of, the full one for the GPU at hand."""
        if self.flavour is not RTX:
            return
        name = f"SM{compute_capability.replace('.', '')}"
        known = getattr(self.trt.ComputeCapability, name, None)
        if known is None:
            raise ValueError(f"{self.flavour.title} {self.trt.__version__} builds for no compute capability "
                             f"{compute_capability}")
        config.num_compute_capabilities = 1
        config.set_compute_capability(known, 0)
        user_memory = getattr(self.trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
        if user_memory is not None:  # a stream in which memory is taken cannot be captured
            config.set_flag(user_memory)

    def compute_as_declared(self, config: Any) -> None:
        """float32 in float32, as the graph's evidence has it: TensorRT would round it to TF32 for products."""
        config.clear_flag(self.trt.BuilderFlag.TF32)

    @property
    def times_kernels(self) -> bool:
        """Whether a build measures kernels, whose times are worth keeping: TensorRT for RTX chooses when it runs."""
        return self.flavour is not RTX

    def use_timing_cache(self, config: Any, path: Path) -> None:
        """Have a build use the times that earlier ones left in a file. Where TensorRT refuses those, it starts anew."""
        config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.is_file() else b""),
                                ignore_mismatch=False)

    def times(self, config: Any) -> bytes:
        """The times after a build, those of earlier ones among them, as `use_timing_cache` reads them."""
        return bytes(memoryview(config.get_timing_cache().serialize()))

    def engine(self, data: bytes, logger: Any) -> Any:
        """An engine from its bytes; None if TensorRT refuses them."""
        self._runtime = self._runtime or self.trt.Runtime(logger)  # one, which must outlive every engine of it
        return self._runtime.deserialize_cuda_engine(data)

    def activation_bytes(self, engine: Any) -> int:
        """Device memory that a context of the engine works in."""
        return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2")
                   else engine.device_memory_size)

    def context(self, engine: Any, memory: int, size: int) -> Any:
        """A context that works in `size` bytes at the address `memory`.

        TensorRT for RTX compiles kernels when a shape is first run; here, at once rather than beside the work, so that
        what a CUDA graph captures is what stays.
        """
        strategy = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.flavour is RTX:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.dynamic_shapes_kernel_specialization_strategy = (
                self.trt.DynamicShapesKernelSpecializationStrategy.EAGER)
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(strategy)
        if context is not None:
            context.set_device_memory(memory, size)
        return context

    def capturable(self, context: Any, stream: int) -> bool:
        """Whether a run of this context can be captured as a CUDA graph, as far as TensorRT knows beforehand."""
        return bool(context.is_stream_capturable(stream)) if hasattr(context, "is_stream_capturable") else True


def _import(flavour: Flavour) -> Any:
    reasons = []
    for name in flavour.modules:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                reasons.append(str(error))
        except Exception as error:  # a library that is missing is an ImportError or an OSError, among others
            reasons.append(f"{type(error).__name__}: {error}")
    why = " ".join("; ".join(reasons).split())[:200] or "it is not installed"
    raise EnvironmentFault(f"{flavour.title} cannot be imported ({why}); {flavour.install}")
