"""From a canonical checkpoint to an engine directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from whisper_factory.backends.onnx_graph.anchor import write_anchor
from whisper_factory.backends.onnx_graph.blocks import check_checkpoint
from whisper_factory.backends.onnx_graph.encoder import write_encoder
from whisper_factory.backends.onnx_graph.graph import OPSET, Graph, Region, WeightFile
from whisper_factory.backends.onnxruntime import sizes
from whisper_factory.backends.onnxruntime.decoder import write_decoder
from whisper_factory.backends.onnxruntime.files import ANCHOR, DECODER, EMBEDDING, ENCODER, VOCABULARY
from whisper_factory.backends.onnxruntime.many_rows import ManyRowsDialect
from whisper_factory.backends.onnxruntime.pack import OnnxRuntimeDialect
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import Progress
from whisper_factory.whisper.checkpoint import Checkpoint

LAYERS = "layers"


def build_engine(directory: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], progress: Progress) -> None:
    """See `whisper_factory.backends.onnxruntime.build`. Holds one layer's weights at a time, and the encoder
    while it computes the end anchor."""
    checkpoint = Checkpoint.open(directory)
    check_checkpoint(checkpoint, spec)
    rows, state = spec.profile.end_anchor, spec.dimensions.n_audio_state
    in_bytes = sizes.cross_in_bytes(spec)

    say("writing the encoder")
    with WeightFile(out / f"{ENCODER}.weights") as weights, \
            progress(spec.dimensions.n_audio_layer, LAYERS) as advance:
        many_rows = spec.precision.bits == 8
        graph = Graph("encoder", weights, opset=21 if many_rows else OPSET)
        dialect = (ManyRowsDialect if many_rows else OnnxRuntimeDialect)(graph, checkpoint, in_bytes)
        anchor = Region(ANCHOR, 0, rows * state * np.dtype(np.float32).itemsize)
        write_encoder(dialect, rows, anchor, advance)
        graph.save(out / f"{ENCODER}.onnx")

    say("writing the decoder")
    with WeightFile(out / f"{DECODER}.weights") as weights, WeightFile(out / EMBEDDING) as table, \
            progress(spec.dimensions.n_text_layer, LAYERS) as advance:
        graph = Graph("decoder", weights)
        write_decoder(OnnxRuntimeDialect(graph, checkpoint, in_bytes), table, advance)
        graph.save(out / f"{DECODER}.onnx")

    if rows:
        say("computing the end anchor from a silent window")
        write_anchor(out / f"{ENCODER}.onnx", out / ANCHOR, spec.dimensions.n_mels, (rows, state), np.dtype(np.float32))
    shutil.copyfile(directory / VOCABULARY, out / VOCABULARY)
    spec.save(out)
