"""From a canonical checkpoint to an engine directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from whisper_factory.backends.onnx_graph.assemble import assemble_encoder
from whisper_factory.backends.onnx_graph.blocks import check_checkpoint
from whisper_factory.backends.onnx_graph.graph import Graph, WeightFile
from whisper_factory.backends.onnxruntime_cuda.decoder import write_decoder
from whisper_factory.backends.onnxruntime_cuda.dialect import CudaDialect
from whisper_factory.backends.onnxruntime_cuda.files import ANCHOR, DECODER, ENCODER, LOG_MEL, VOCABULARY
from whisper_factory.backends.onnxruntime_cuda.logmel import write_log_mel
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import LAYERS, Progress
from whisper_factory.whisper.checkpoint import Checkpoint


def build_engine(directory: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], progress: Progress) -> None:
    """See `whisper_factory.backends.onnxruntime_cuda.build`. Holds one layer's weights at a time, and the encoder while
    it computes the end anchor."""
    checkpoint = Checkpoint.open(directory)
    check_checkpoint(checkpoint, spec)
    with WeightFile(out / f"{LOG_MEL}.weights") as weights:
        graph = Graph(LOG_MEL, weights)
        write_log_mel(graph, spec.dimensions.n_mels)
        graph.save(out / f"{LOG_MEL}.onnx")
    say("writing the encoder")
    assemble_encoder(lambda weights: CudaDialect(Graph(ENCODER, weights), checkpoint), spec, np.dtype(np.float16),
                     out / ENCODER, out / ANCHOR, say, progress)
    say("writing the decoder")
    with WeightFile(out / f"{DECODER}.weights") as weights, \
            progress(spec.dimensions.n_text_layer, LAYERS) as advance:
        graph = Graph(DECODER, weights)
        write_decoder(CudaDialect(graph, checkpoint), advance)
        graph.save(out / f"{DECODER}.onnx")
    shutil.copyfile(directory / VOCABULARY, out / VOCABULARY)
    spec.save(out)
