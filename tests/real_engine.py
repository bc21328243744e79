"""tiny.en engines from real weights, built once for all the tests that hear with them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.real_weights import TINY_EN, packaged
from tests.whisper.torch_engine import profile
from whisper_factory import backends, clips
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision
from whisper_factory.whisper import readers, vocabulary
from whisper_factory.whisper.checkpoint import write_checkpoint
from whisper_factory.whisper.transcribe import VOCABULARY_FILE

FLOAT32 = Precision("float32", 0, "float32")


@cache
def tiny_en(max_input_len: int = 3000) -> Path:
    """A composition's directory, as far as running needs it: engine/ inside. Float32, 8 windows, 5 beams."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    checkpoint, engine = directory / "checkpoint", directory / "engine"
    weights = readers.read(packaged(TINY_EN).parent, "ctranslate2")
    write_checkpoint(checkpoint, "tiny.en", FLOAT32, weights)
    ranks = vocabulary.ranks_from_tokenizer_json(packaged(TINY_EN).with_name("tokenizer.json"))
    vocabulary.write_rank_file(checkpoint / VOCABULARY_FILE, ranks)
    spec = EngineSpec("tiny.en", "onnxruntime", weights.dimensions, FLOAT32, profile(max_input_len=max_input_len),
                      KVCache("contiguous", 64))
    engine.mkdir()
    backends.get("onnxruntime").build(checkpoint, spec, engine, lambda line: None)
    return directory


def clip(name: str) -> Path:
    """A bundled recording."""
    return clips.HERE / f"{name}.flac"
