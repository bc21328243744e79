"""The end anchor: what the end of a 30 s window looks like to the decoder, computed from silence.

The decoder stops because it attends to the last states of a whole window. They hardly depend on the audio, so an
engine for shorter windows carries them as a constant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from whisper_factory.backends.onnx_graph.runtime import open_session
from whisper_factory.backends.onnx_graph.unrounded import write_unrounded
from whisper_factory.threads import physical_cores
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

# OpenAI's log-mel of silence: log10 of the floor 1e-10, which is its own maximum, so nothing is raised to
# within 8 of it; then (x + 4) / 4.
SILENCE = (-10.0 + 4.0) / 4.0


def write_anchor(encoder: Path, target: Path, n_mels: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Compute the last rows of the states of a silent 3000-frame window with the encoder that was just written.

    Without rounded activations, so that it is what a later machine can make again.

    Args:
        encoder: encoder.onnx; its constant `end_anchor` lies in `target`.
        target: the file to write, of `shape` (rows, state) and `dtype`. The encoder cannot be opened without it, so it
            is zeros first: at 3000 frames no row of it is used.
    """
    np.zeros(shape, dtype).tofile(target)
    exact = encoder.with_name(f".{encoder.name}")  # beside it, where its weights are
    write_unrounded(encoder, exact)
    session = open_session(exact, physical_cores(), fuse_dequantizing=False)
    exact.unlink()
    mel = np.full((1, n_mels, WINDOW_FRAMES), SILENCE, np.float32)
    states = session.run(["encoder_states"], {"mel": mel})[0]
    del session  # the file may be mapped
    states[0, -shape[0]:].astype(dtype.newbyteorder("<")).tofile(target)
