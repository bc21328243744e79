"""reference: what the unquantised model hears at 3000 frames in the clips that validation uses.

Builds the float32 engine in a scratch directory, keeps its transcripts, and drops the engine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory import backends
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision, Profile
from whisper_factory.steps import convert, listening
from whisper_factory.steps.context import Context
from whisper_factory.whisper.dimensions import WINDOW_FRAMES, Dimensions

if TYPE_CHECKING:
    from whisper_factory.plan import PlannedStep

VERSION = 1
TRANSCRIPTS = "transcripts.json"
KEPT = ("text", "tokens", "runaway")


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write transcripts.json: per clip its text and tokens, and whether even the reference ran away on it."""
    params, scratch = step.params, out / "scratch"
    checkpoint, engine = scratch / "checkpoint", scratch / "engine"
    checkpoint.mkdir(parents=True)
    engine.mkdir()
    spec = EngineSpec(
        model=params["model"], backend=params["backend"][0], dimensions=Dimensions(**params["dimensions"]),
        precision=Precision("float32", 0, "float32"),
        profile=Profile("reference", 1, 1, WINDOW_FRAMES, 224, "max", 0, 0), kv_cache=KVCache("contiguous", 64),
    )
    convert.checkpoint(inputs["fetch"], params["kind"], checkpoint, spec.model, spec.dimensions, spec.precision,
                       context.progress)
    backends.get(spec.backend).build(checkpoint, spec, engine, context.say, context.failures, context.progress)
    shutil.rmtree(checkpoint)
    requests = listening.clip_requests(step.hints["clips"], params["max_input_len"], params["short_window"])
    report = listening.listen(engine, requests, scratch, 1, context.progress)
    shutil.rmtree(scratch)
    heard = [{"name": request["name"], "edge": request["edge"], **{key: clip[key] for key in KEPT}}
             for request, clip in zip(requests, report["clips"], strict=True)]
    (out / TRANSCRIPTS).write_text(json.dumps(heard, indent=1) + "\n", encoding="utf-8")
