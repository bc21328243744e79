"""For gpu.py: engines from what gpu_payload.py prepared, clips, and the card as its driver sees it.

A payload is a folder: sources/MODEL/ (weights/ and the vocabulary, as the step `fetch` leaves them), clips/ (FLAC files
and clips.json), whisper/ (openai-whisper, if it is to be measured).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from whisper_factory import backends
from whisper_factory.backends.onnxruntime_cuda import machine
from whisper_factory.engine_spec import EngineSpec, KVCache, KVMode, Precision, Profile
from whisper_factory.steps import convert
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE, Dimensions

CONF = Path(__file__).parents[1] / "conf"
PRECISIONS = {"float16": Precision("float16", 0, "float16"), "int8": Precision("int8", 8, "float16"),
              "int4": Precision("int4", 4, "float16")}
WINDOW_SECONDS = 30


def profile(name: str, **changes: Any) -> Profile:
    """A profile of conf/, with fields changed."""
    read = yaml.safe_load((CONF / "profile" / f"{name}.yaml").read_text(encoding="utf-8"))
    read = read.get("profile", read)
    return replace(Profile(**{entry.name: read[entry.name] for entry in fields(Profile)}), **changes)


def declared(model: str, precision: str, shape: Profile, provider: str, mode: KVMode = "contiguous") -> EngineSpec:
    """The engine of a composition."""
    read = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text(encoding="utf-8"))
    return EngineSpec(model, backends.PROVIDERS[provider], Dimensions(**read["dimensions"]), PRECISIONS[precision],
                      shape, KVCache(mode, 64))


def built(payload: Path, work: Path, spec: EngineSpec) -> Path:
    """Its engine directory, made now if it was not before."""
    told = hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode()).hexdigest()[:12]  # all that shapes it
    target = work / f"{spec.model}-{spec.precision.name}-{spec.profile.name}-{spec.kv_cache.mode}-{told}"
    if not (target / "engine.json").exists():
        checkpoint = work / f"checkpoint-{spec.model}-{spec.precision.name}"
        source = payload / "sources" / spec.model
        with (work / f"{checkpoint.name}.lock").open("w") as lock:  # several measurements may want it at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (checkpoint / "done").exists():
                convert.checkpoint(source, "ctranslate2", checkpoint, spec.model, spec.dimensions, spec.precision)
                shutil.copyfile(source / "vocabulary.tiktoken", checkpoint / "vocabulary.tiktoken")
                (checkpoint / "done").touch()
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        backends.get(spec.backend).build(checkpoint, spec, target, lambda line: None, work / "failed")
    return target


@cache
def clips(payload: Path) -> list[dict[str, Any]]:
    """file, text, condition and sentence of each, and its samples as "audio"."""
    listed: list[dict[str, Any]] = json.loads((payload / "clips/clips.json").read_text(encoding="utf-8"))
    return [{**row, "audio": read_audio(payload / "clips" / row["file"])} for row in listed]


def minutes(payload: Path, count: float, each: float) -> list[NDArray[np.float32]]:
    """So many minutes of the clips, joined into recordings of at most `each` seconds."""
    joined: list[NDArray[np.float32]] = []
    parts: list[NDArray[np.float32]] = []
    total, room = 0, int(each * SAMPLE_RATE)
    while total < count * 60 * SAMPLE_RATE:
        for clip in clips(payload):
            audio = clip["audio"]
            if parts and sum(map(len, parts)) + len(audio) > room:
                joined.append(np.concatenate(parts))
                parts = []
            if len(audio) <= room:
                parts.append(audio)
                total += len(audio)
            if total >= count * 60 * SAMPLE_RATE:
                break
    return [*joined, np.concatenate(parts)] if parts else joined


def used() -> int:
    """Bytes of the card's memory that are in use, whoever's."""
    found = machine.gpu()
    assert found is not None, "no GPU"
    return found.memory - found.free
