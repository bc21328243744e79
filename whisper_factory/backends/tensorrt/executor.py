"""TensorRT's engines, run: buffers bound by address, the decoder's steps as CUDA graphs.

Written by NVIDIA's documentation of the Python API, and tested with stand-ins that check names, shapes, types and
addresses; no GPU has run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.tensorrt.adapter import Library
from whisper_factory.backends.tensorrt.files import STAGES
from whisper_factory.backends.tensorrt.flavours import Flavour
from whisper_factory.errors import EnvironmentFault, UserError

ENCODER, DECODER = STAGES
Shapes = tuple[tuple[str, tuple[int, ...], int], ...]  # name, shape and address of every tensor


class Streaming(Device, Protocol):
    """A device with a CUDA stream."""

    stream: int

    def capture(self, work: Callable[[], bool]) -> int | None:
        """What `work` puts into the stream, as a graph; None if it cannot be captured."""

    def launch(self, graph: int) -> None:
        """Run a graph."""

    def forget(self, graph: int) -> None:
        """Free a graph."""


class _Context:
    """An execution context: the shapes and addresses that it has now, and its work as a CUDA graph once it repeats."""

    def __init__(self, stage: str, context: Any, library: Library, device: Streaming) -> None:
        self._stage, self._context, self._library, self._device = stage, context, library, device
        self._bound: Shapes = ()
        self._graph: int | None = None
        self._runs = 0  # with what is bound
        self._captures = True

    def run(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        self._bind(inputs, outputs)
        if self._graph is not None:
            self._device.launch(self._graph)
            return
        if not self._enqueue():
            raise EnvironmentFault(f"TensorRT could not run the {self._stage} on "
                                   f"{', '.join(f'{name} {tensor.shape}' for name, tensor in inputs.items())}: "
                                   f"{self._library.said()}")
        self._runs += 1
        if self._runs == 2 and self._captures:  # after a run with these shapes, which TensorRT asks for
            self._graph = self._capture()
            self._captures = self._graph is not None

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._device.stream))

    def _capture(self) -> int | None:
        if not self._library.capturable(self._context, self._device.stream):
            return None
        return self._device.capture(self._enqueue)

    def _bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Tell the context of shapes and addresses, where they are not those of the run before."""
        wanted = tuple((name, tensor.shape, tensor.address) for name, tensor in (*inputs.items(), *outputs.items()))
        if wanted == self._bound:
            return
        if self._graph is not None:
            self._device.forget(self._graph)
        self._bound, self._graph, self._runs = (), None, 0
        for name, tensor in inputs.items():
            if not self._context.set_input_shape(name, tensor.shape):
                raise UserError(f"the {self._stage} was not built for {name} of shape {tensor.shape}; build it with "
                                f"what is asked (profile.max_input_len, max_batch_size, max_beam_width)")
        for name, tensor in (*inputs.items(), *outputs.items()):
            if not self._context.set_tensor_address(name, tensor.address):
                raise EnvironmentFault(f"TensorRT refused the {self._stage}'s {name} at {tensor.address:#x}: "
                                       f"{self._library.said()}")
        self._bound = wanted


class TensorRTExecutor:
    """encoder.engine and decoder.engine of a directory. See `session.Executor`.

    The decoder has two contexts, one for prompts and one for single tokens, so that the shapes of a step stay as they
    are from window to window. All contexts work in one piece of memory, one after the other.
    """

    def __init__(self, directory: Path, flavour: Flavour, device: Streaming) -> None:
        """
        Raises:
            EnvironmentFault: TensorRT cannot be imported, or refuses an engine.
        """
        self._library = Library(flavour)
        self._logger = self._library.logger(self._library.heard)
        self._engines = {stage: self._load(directory / f"{stage}.engine") for stage in STAGES}
        sizes = [self._library.activation_bytes(engine) for engine in self._engines.values()]
        memory, size = device.allocate(max(sizes)), max(sizes)
        self._contexts = {
            key: _Context(stage, self._context(stage, memory, size), self._library, device)
            for key, stage in (("encoder", ENCODER), ("prompt", DECODER), ("step", DECODER))
        }

    def _load(self, path: Path) -> Any:
        engine = self._library.engine(path.read_bytes(), self._logger)
        if engine is None:
            raise EnvironmentFault(f"{self._library.flavour.title} refused '{path}': {self._library.said()}")
        return engine

    def _context(self, stage: str, memory: int, size: int) -> Any:
        context = self._library.context(self._engines[stage], memory, size)
        if context is None:
            raise EnvironmentFault(f"TensorRT cannot make a context of the {stage}: {self._library.said()}")
        return context

    def run(self, stage: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """See `session.Executor`."""
        key = stage if stage == ENCODER else "step" if inputs["tokens"].shape[1] == 1 else "prompt"
        self._contexts[key].run(inputs, outputs)
