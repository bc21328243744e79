"""From a canonical checkpoint to an engine directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from whisper_factory.backends.onnx_graph.assemble import assemble_encoder
from whisper_factory.backends.onnx_graph.blocks import check_checkpoint
from whisper_factory.backends.onnx_graph.graph import BLOCKED_OPSET, OPSET, Graph, WeightFile
from whisper_factory.backends.onnxruntime import sizes
from whisper_factory.backends.onnxruntime.decoder import write_decoder
from whisper_factory.backends.onnxruntime.files import ANCHOR, DECODER, EMBEDDING, ENCODER, VOCABULARY
from whisper_factory.backends.onnxruntime.many_rows import ManyRowsDialect
from whisper_factory.backends.onnxruntime.pack import ApartDialect, OnnxRuntimeDialect
from whisper_factory.backends.onnxruntime.token_rows import TokenRowsDialect
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import LAYERS, Progress
from whisper_factory.whisper.checkpoint import Checkpoint


def build_engine(checkpoint: Checkpoint, vocabulary: Path, spec: EngineSpec, out: Path, say: Callable[[str], None],
                 progress: Progress, apart: bool = False) -> None:
    """See `whisper_factory.backends.onnxruntime.build_from`. Holds one layer's weights at a time, and the encoder
    while it computes the end anchor."""
    check_checkpoint(checkpoint, spec)
    in_bytes = sizes.cross_in_bytes(spec)
    opset = BLOCKED_OPSET if in_bytes else OPSET

    def encoder(weights: WeightFile) -> OnnxRuntimeDialect:
        if spec.precision.bits == 8:
            return ManyRowsDialect(Graph("encoder", weights, BLOCKED_OPSET), checkpoint, in_bytes)
        return (ApartDialect if apart else OnnxRuntimeDialect)(Graph("encoder", weights, opset), checkpoint, in_bytes)

    def decoder(weights: WeightFile) -> OnnxRuntimeDialect:
        if spec.precision.bits == 8 and in_bytes:
            return TokenRowsDialect(Graph("decoder", weights, BLOCKED_OPSET), checkpoint, in_bytes)
        return OnnxRuntimeDialect(Graph("decoder", weights, opset), checkpoint, in_bytes)

    say("writing the encoder")
    assemble_encoder(encoder, spec, np.dtype(np.float32), out / ENCODER, out / ANCHOR, say, progress, keep_states=True)

    say("writing the decoder")
    with WeightFile(out / f"{DECODER}.weights") as weights, WeightFile(out / EMBEDDING) as table, \
            progress(spec.dimensions.n_text_layer, LAYERS) as advance:
        dialect = decoder(weights)
        write_decoder(dialect, table, advance)
        dialect.graph.save(out / f"{DECODER}.onnx")
    shutil.copyfile(vocabulary, out / VOCABULARY)
    spec.save(out)
