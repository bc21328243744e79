"""Checkpoints and engines for these tests, from random and from real weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.real_weights import TINY_EN, packaged
from whisper_factory.backends import onnxruntime
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision, Profile
from whisper_factory.whisper.checkpoint import Checkpoint, write_checkpoint
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights, ctranslate2

PRECISIONS = {
    "float32": Precision("float32", 0, "float32"),
    "float16": Precision("float16", 0, "float16"),
    "int8": Precision("int8", 8, "float16"),
    "int4": Precision("int4", 4, "float16"),
    "int4_g128": Precision("int4_g128", 4, "float16", 128),
    "int4_g32": Precision("int4_g32", 4, "float16", 32),
    "mixed": Precision("int4_g32", 4, "float16", 32, (
        "encoder.blocks.1.mlp.2", "decoder.blocks.0.attn.query", "decoder.blocks.0.attn.key",
        "decoder.blocks.0.attn.value", "decoder.blocks.0.cross_attn.key", "decoder.blocks.1.mlp.0")),
}


def make_checkpoint(directory: Path, weights: Weights, precision: str) -> Path:
    """A checkpoint as convert leaves it; the vocabulary is not read by the backend."""
    write_checkpoint(directory, "test", PRECISIONS[precision], weights)
    (directory / "vocabulary.tiktoken").write_bytes(b"IQ== 0\n")
    return directory


def make_spec(dimensions: Dimensions, precision: str = "float32", mode: str = "contiguous", page: int = 64,
              pages: int | None = None, **profile: Any) -> EngineSpec:
    """A batch of 3 windows by 3 beams, 30 s long, but what is changed."""
    plain = {"name": "test", "max_batch_size": 3, "max_beam_width": 3, "max_input_len": 3000, "max_new_tokens": 40,
             "padding_strategy": "max", "end_anchor": 50, "margin_frames": 0}
    cache = KVCache(mode, page, pages)  # type: ignore[arg-type]
    return EngineSpec("test", "onnxruntime", dimensions, PRECISIONS[precision], Profile(**{**plain, **profile}), cache)


def build(checkpoint: Path, out: Path, **spec: Any) -> Path:
    """Build an engine into `out`, made here."""
    out.mkdir(parents=True)
    opened = Checkpoint.open(checkpoint)
    declared = replace(make_spec(opened.dimensions, **spec), precision=opened.precision)
    onnxruntime.build(checkpoint, declared, out, lambda line: None)
    return out


def respecified(engine: Path, out: Path, **spec: Any) -> Path:
    """The same graphs and weights under another profile or KV mode, which shape only engine.json."""
    out.mkdir(parents=True)
    for file in engine.iterdir():
        if file.name != "engine.json":
            (out / file.name).symlink_to(file)
    old = EngineSpec.load(engine)
    replace(make_spec(old.dimensions, **spec), precision=old.precision).save(out)
    return out


def tiny_en() -> Weights:
    """OpenAI's tiny.en."""
    return ctranslate2.read(packaged(TINY_EN).parent)


def layer(checkpoint: Checkpoint, name: str, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """A linear layer of a checkpoint, in float64."""
    y = x.astype(np.float64) @ np.asarray(checkpoint.tensor(f"{name}.weight"), np.float64).T
    return np.asarray(y if name.endswith("key") else y + checkpoint.tensor(f"{name}.bias"))
