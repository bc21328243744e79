"""preflight: an embedded engine of the weights that a kit carries, for hearing them before a device is touched.

The integers are taken out of the packed checkpoint again and multiplied by their scales as they are stored; the
embedding and the output head are the packed checkpoint's own. What is not the device's: activations are float32.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from whisper_factory import backends
from whisper_factory.backends.tensorrt_llm import unpack
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import Progress
from whisper_factory.whisper.checkpoint import write_checkpoint
from whisper_factory.whisper.transcribe import VOCABULARY_FILE


def build(packed: Path, spec: EngineSpec, scratch: Path, say: Callable[[str], None], failures: Path,
          progress: Progress) -> Path:
    """Build the engine in `scratch` and return its directory."""
    checkpoint, engine = scratch / "checkpoint", scratch / "engine"
    engine.mkdir(parents=True)
    write_checkpoint(checkpoint, spec.model, spec.precision, unpack.read(packed), progress)
    shutil.copyfile(packed / VOCABULARY_FILE, checkpoint / VOCABULARY_FILE)
    backends.get(spec.backend).build(checkpoint, spec, engine, say, failures, progress)
    shutil.rmtree(checkpoint)
    return engine
