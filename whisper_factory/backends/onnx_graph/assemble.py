"""An encoder's files: its graph, its weights, and the end anchor, which the graph itself computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from whisper_factory.backends.onnx_graph.anchor import write_anchor
from whisper_factory.backends.onnx_graph.blocks import Dialect
from whisper_factory.backends.onnx_graph.encoder import STATES, write_encoder
from whisper_factory.backends.onnx_graph.graph import Region, WeightFile
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import LAYERS, Progress


def assemble_encoder(spelled: Callable[[WeightFile], Dialect], spec: EngineSpec, dtype: np.dtype[Any], encoder: Path,
                     anchor: Path, say: Callable[[str], None], progress: Progress, keep_states: bool = False) -> None:
    """Write encoder.onnx and encoder.weights, and the end anchor's rows if there are any.

    Args:
        spelled: makes the graph's dialect, over the file of its weights.
        dtype: of activations.
        encoder: the files' path, less .onnx and .weights.
        anchor: a file beside them.
        progress: of the layers.
        keep_states: leave the states among the outputs, though no decoder reads them.
    """
    rows, sizes, graph_file = spec.profile.end_anchor, spec.dimensions, Path(f"{encoder}.onnx")
    with WeightFile(Path(f"{encoder}.weights")) as weights, progress(sizes.n_audio_layer, LAYERS) as advance:
        dialect = spelled(weights)
        region = Region(anchor.name, 0, rows * sizes.n_audio_state * dtype.itemsize)
        write_encoder(dialect, rows, region, advance)
        dialect.graph.save(graph_file)
    if rows:
        say("computing the end anchor from a silent window")
        write_anchor(graph_file, anchor, sizes.n_mels, (rows, sizes.n_audio_state), dtype)
    if not keep_states:
        dialect.graph.save(graph_file, leave_out=[STATES])
