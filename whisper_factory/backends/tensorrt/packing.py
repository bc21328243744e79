"""From a canonical checkpoint to what TensorRT's parser is given: two ONNX graphs, their weights, the end anchor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from whisper_factory.backends.onnx_graph.assemble import assemble_encoder
from whisper_factory.backends.onnx_graph.blocks import check_checkpoint
from whisper_factory.backends.onnx_graph.graph import BLOCKED_OPSET, OPSET, Graph, WeightFile
from whisper_factory.backends.tensorrt.decoder import write_decoder
from whisper_factory.backends.tensorrt.dialect import TensorRTDialect
from whisper_factory.backends.tensorrt.files import ANCHOR, STAGES, VOCABULARY
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import LAYERS, Progress
from whisper_factory.whisper.checkpoint import Checkpoint

ENCODER, DECODER = STAGES


def write(directory: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], progress: Progress) -> None:
    """Fill the empty directory `out` from a checkpoint directory. Holds one layer's weights at a time, and the encoder
    while it computes the end anchor.

    Raises:
        UserError: the checkpoint is another model's, or of another precision.
    """
    checkpoint = Checkpoint.open(directory)
    check_checkpoint(checkpoint, spec)
    say("writing the encoder")
    encoder(checkpoint, spec, out, say, progress)
    say("writing the decoder")
    decoder(checkpoint, spec, out, progress)
    shutil.copyfile(directory / VOCABULARY, out / VOCABULARY)


def _graph(name: str, weights: WeightFile, spec: EngineSpec) -> Graph:
    return Graph(name, weights, BLOCKED_OPSET if spec.precision.bits == 4 else OPSET, contrib=False)


def encoder(checkpoint: Checkpoint, spec: EngineSpec, out: Path, say: Callable[[str], None], progress: Progress
            ) -> None:
    """Write encoder.onnx, its weights, and the end anchor if there is one."""
    assemble_encoder(lambda weights: TensorRTDialect(_graph(ENCODER, weights, spec), checkpoint), spec,
                     np.dtype(spec.precision.dtype), out / ENCODER, out / ANCHOR, say, progress)


def decoder(checkpoint: Checkpoint, spec: EngineSpec, out: Path, progress: Progress) -> None:
    """Write decoder.onnx and its weights."""
    with WeightFile(out / f"{DECODER}.weights") as weights, \
            progress(spec.dimensions.n_text_layer, LAYERS) as advance:
        graph = _graph(DECODER, weights, spec)
        write_decoder(TensorRTDialect(graph, checkpoint), spec.max_tokens, advance)
        graph.save(out / f"{DECODER}.onnx")
