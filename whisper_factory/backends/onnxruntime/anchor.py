"""The end anchor: what the end of a 30 s window looks like to the decoder, computed from silence.

The decoder stops because it attends to the last states of a whole window. They hardly depend on the audio, so an
engine for shorter windows carries them as a constant.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from whisper_factory.backends.onnxruntime.runtime import open_session, physical_cores
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

# OpenAI's log-mel of silence: log10 of the floor 1e-10, which is its own maximum, so nothing is raised to
# within 8 of it; then (x + 4) / 4.
SILENCE = (-10.0 + 4.0) / 4.0


def write_anchor(encoder: Path, target: Path, n_mels: int, rows: int, state: int) -> None:
    """Compute the last `rows` states of a silent 3000-frame window with the encoder that was just written.

    Args:
        encoder: encoder.onnx; its constant `end_anchor` lies in `target`.
        target: the file to write, float32 [rows, state]. The encoder cannot be opened without it, so it is
            zeros first: at 3000 frames no row of it is used.
    """
    np.zeros((rows, state), "<f4").tofile(target)
    session = open_session(encoder, physical_cores())
    mel = np.full((1, n_mels, WINDOW_FRAMES), SILENCE, np.float32)
    states = session.run(["encoder_states"], {"mel": mel})[0]
    del session  # the file may be mapped
    states[0, -rows:].astype("<f4").tofile(target)
