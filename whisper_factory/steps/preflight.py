"""preflight: an embedded engine of the weights that a kit carries, for hearing them before a device is touched.

The integers are taken out of the packed checkpoint again and multiplied by their scales as they are stored; the
embedding and the output head are the packed checkpoint's own. What is not the device's: activations are float32.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from whisper_factory import backends
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.steps.context import Context
from whisper_factory.steps.fetch import VOCABULARY


def build(backend: str, packed: Path, spec: EngineSpec, scratch: Path, context: Context) -> Path:
    """Build the engine in `scratch` and return its directory."""
    from whisper_factory.whisper.checkpoint import write_checkpoint

    kit = backends.kit(backend)
    assert kit is not None
    checkpoint, engine = scratch / "checkpoint", scratch / "engine"
    engine.mkdir(parents=True)
    write_checkpoint(checkpoint, spec.model, spec.precision, kit.read(packed), context.progress)
    shutil.copyfile(packed / VOCABULARY, checkpoint / VOCABULARY)
    backends.get(spec.backend).build(checkpoint, spec, engine, context.say, context.failures, context.progress)
    shutil.rmtree(checkpoint)
    return engine
