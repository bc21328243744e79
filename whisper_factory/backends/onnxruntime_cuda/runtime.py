"""Opening ONNX Runtime's sessions on a GPU, and running them over memory that is bound by address.

The options that differ from the defaults:
- all sessions work in the stream of our own copies, so that everything happens in the order in which it was asked for,
  and no run waits for the GPU;
- what runs again and again is captured as a CUDA graph, one for each number of rows and length of windows;
- memory is taken as it is asked for (kSameAsRequested), not in powers of two, and without patterns for every shape;
- log-mel is computed in float32 as it is, not in TF32.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.backends.cuda.device import Tensor
from whisper_factory.backends.onnxruntime_cuda.files import STAGES
from whisper_factory.backends.onnxruntime_cuda.limits import MOST_GRAPHS
from whisper_factory.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

PROVIDER = "CUDAExecutionProvider"
NO_GRAPH = -1
ITS_OWN, QUIET = 2, 4  # of what ONNX Runtime prints: its default, and nothing


class _Bound:
    """A binding, and how it is run. See `stages.Bound`."""

    def __init__(self, session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, graph: int | None,
                 given: Mapping[str, NDArray[Any]]) -> None:
        """
        Args:
            graph: number of the CUDA graph that it becomes; NO_GRAPH; None where there are no graphs.
        """
        import onnxruntime

        self._session, self._binding, self._given = session, binding, given  # what is bound must outlive the binding
        self.captured = graph is not None and graph != NO_GRAPH
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if graph is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def run(self) -> None:
        """See `stages.Bound`."""
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # its exceptions have no common base of their own
            raise _explained(error) from error

    def rehearse(self) -> None:
        """The first run with a graph's number runs, captures, and runs what was captured."""
        if self.captured:
            self.run()


class OnnxExecutor:
    """The graphs of a directory, on a GPU or over the host's memory. See `stages.Executor`."""

    def __init__(self, directory: Path, stream: int | None, threads: int = 1, graphs: bool = True) -> None:
        """
        Args:
            stream: CUDA's, in which everything happens; None: the CPU provider runs the graphs.
            graphs: whether what repeats becomes CUDA graphs.

        Raises:
            EnvironmentFault: the provider cannot be used.
            UserError: a file is missing or damaged.
        """
        self._place, self._graphs, self._numbers = "cpu" if stream is None else "cuda", graphs, count(1)
        self.sessions = {}
        for stage in STAGES:
            model = directory / f"{stage}.onnx"
            if stream is None:
                from whisper_factory.backends.onnx_graph.runtime import open_session

                self.sessions[stage] = open_session(model, threads)
            else:
                self.sessions[stage] = open_on_gpu(model, stream, graphs)

    def bind(self, stage: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor],
             given: Mapping[str, NDArray[Any]], repeats: bool = False) -> _Bound:
        """See `stages.Executor`."""
        session, place = self.sessions[stage], self._place
        binding = session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, place, 0, tensor.dtype.type, tensor.shape, tensor.address)
        for name, array in given.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, tensor in outputs.items():
            binding.bind_output(name, place, 0, tensor.dtype.type, tensor.shape, tensor.address)
        graph = self._graph(repeats) if place == "cuda" and self._graphs else None
        return _Bound(session, binding, graph, given)

    def _graph(self, repeats: bool) -> int:
        number = next(self._numbers) if repeats else NO_GRAPH
        return number if number <= MOST_GRAPHS else NO_GRAPH


def open_on_gpu(model: Path, stream: int, graphs: bool) -> onnxruntime.InferenceSession:
    """Open a model on the first GPU. See `OnnxExecutor`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = QUIET  # what it would print, its exceptions say
    provider = {"device_id": "0", "user_compute_stream": str(stream), "arena_extend_strategy": "kSameAsRequested",
                "use_tf32": "0", "enable_cuda_graph": str(int(graphs))}
    onnxruntime.set_default_logger_severity(QUIET)  # it looks for a plug-in of that name first, and warns of none
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=[(PROVIDER, provider)])
    except Exception as error:  # its exceptions have no common base of their own
        if "alloc" in str(error).lower() or "memory" in str(error).lower():
            raise _explained(error) from error
        raise UserError(f"'{model}' cannot be opened ({_first_line(error)}); build the engine again") from error
    finally:
        onnxruntime.set_default_logger_severity(ITS_OWN)
    if session.get_providers()[0] != PROVIDER:  # it falls back to the CPU without a word
        raise EnvironmentFault(f"ONNX Runtime did not open '{model.name}' on the GPU; look at what "
                               f"python -c 'import onnxruntime; onnxruntime.print_debug_info()' says of CUDA and cuDNN")
    return session


def _explained(error: Exception) -> Exception:
    if "alloc" in str(error).lower():
        return UserError(f"the GPU's memory is full ({_first_line(error)}); stop what else uses it, or build a smaller "
                         f"engine: profile.max_batch_size, profile.max_beam_width, precision=int8 or int4")
    return EnvironmentFault(f"ONNX Runtime failed on the GPU: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
