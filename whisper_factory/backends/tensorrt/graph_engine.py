"""The graphs that TensorRT was given, run on the CPU by ONNX Runtime: the evidence where the engine cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from whisper_factory.backends.cuda.device import Host, Tensor
from whisper_factory.backends.onnx_graph.runtime import open_session
from whisper_factory.backends.tensorrt.files import STAGES
from whisper_factory.backends.tensorrt.session import TensorRTEngine
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.threads import physical_cores


class OnnxExecutor:
    """encoder.onnx and decoder.onnx of a directory, over this process's memory. See `session.Executor`.

    ONNX Runtime has no kernels for some operators in float16 on the CPU: it puts casts to float32 around those itself.
    Weights are dequantised and multiplied as floats, as the graph says.
    """

    def __init__(self, directory: Path, threads: int) -> None:
        self.sessions = {stage: open_session(directory / f"{stage}.onnx", threads, fuse_dequantizing=False)
                         for stage in STAGES}

    def run(self, stage: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """See `session.Executor`."""
        session = self.sessions[stage]
        binding = session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, "cpu", 0, tensor.dtype.type, tensor.shape, tensor.address)
        for name, tensor in outputs.items():
            binding.bind_output(name, "cpu", 0, tensor.dtype.type, tensor.shape, tensor.address)
        session.run_with_iobinding(binding)


def load(directory: Path, threads: int | None) -> TensorRTEngine:
    """An engine over the graphs in a directory with engine.json."""
    threads = threads or physical_cores()
    return TensorRTEngine(EngineSpec.load(directory), Host(), OnnxExecutor(directory, threads), threads)
