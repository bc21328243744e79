"""tiny.en engines from real weights, built once for all the tests that hear with them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.real_weights import TINY_EN, packaged
from tests.whisper.torch_engine import profile
from whisper_factory import backends, clips
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision
from whisper_factory.whisper import readers, vocabulary
from whisper_factory.whisper.checkpoint import write_checkpoint
from whisper_factory.whisper.transcribe import VOCABULARY_FILE

PRECISIONS = {"float32": Precision("float32", 0, "float32"), "int8": Precision("int8", 8, "float16")}
CONTIGUOUS, PAGED = KVCache("contiguous", 64), KVCache("paged", 64)


@cache
def _built(precision: str, max_batch_size: int) -> Path:
    """A composition's directory: of its profile and KV cache, graphs know only whether there are several windows."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    checkpoint, engine = directory / "checkpoint", directory / "engine"
    weights = readers.read(packaged(TINY_EN).parent, "ctranslate2")
    write_checkpoint(checkpoint, "tiny.en", PRECISIONS[precision], weights)
    ranks = vocabulary.ranks_from_tokenizer_json(packaged(TINY_EN).with_name("tokenizer.json"))
    vocabulary.write_rank_file(checkpoint / VOCABULARY_FILE, ranks)
    spec = EngineSpec("tiny.en", "onnxruntime", weights.dimensions, PRECISIONS[precision],
                      profile(max_batch_size=max_batch_size), CONTIGUOUS)
    engine.mkdir()
    backends.get("onnxruntime").build(checkpoint, spec, engine, lambda line: None)
    return directory


@cache
def tiny_en(max_input_len: int = 3000, precision: str = "float32", cache: KVCache = CONTIGUOUS, **changes: int) -> Path:
    """A composition's directory, as far as running needs it: engine/ inside. 8 windows, 5 beams, or as changed."""
    declared = profile(max_input_len=max_input_len, **changes)
    built = _built(precision, min(2, declared.max_batch_size)) / "engine"
    directory = Path(tempfile.mkdtemp(dir=built.parent))
    shutil.copytree(built, directory / "engine", copy_function=os.link)
    (directory / "engine" / "engine.json").unlink()
    replace(EngineSpec.load(built), profile=declared, kv_cache=cache).save(directory / "engine")
    return directory


def duplex() -> Path:
    """profile=duplex_lowmem with tiny.en."""
    return tiny_en(750, "int8", PAGED, max_batch_size=1, max_beam_width=1, max_new_tokens=64, margin_frames=100)


def clip(name: str) -> Path:
    """A bundled recording."""
    return clips.HERE / f"{name}.flac"
