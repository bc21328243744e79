"""reference: what the unquantised model hears at 3000 frames in the clips that validation uses.

Builds the float32 engine in a scratch directory, of the weights as they lie: in float32 a checkpoint would be the same
again. Keeps its transcripts, and drops the engine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.backends import onnxruntime
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision, Profile
from whisper_factory.steps import convert, listening
from whisper_factory.steps.context import Context
from whisper_factory.steps.fetch import VOCABULARY, as_given
from whisper_factory.whisper.dimensions import WINDOW_FRAMES, Dimensions

if TYPE_CHECKING:
    from whisper_factory.planned_steps import PlannedStep

VERSION = 5
TOGETHER, HELD = 16, 1 << 29  # windows of a batch, and bytes of their keys and values
TRANSCRIPTS = "transcripts.json"
KEPT = ("text", "tokens", "runaway")


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write transcripts.json: per clip its text and tokens, and whether even the reference ran away on it.

    Raises:
        UserError: weights that cannot be read, or that are not those of the model that was declared.
    """
    from whisper_factory.whisper.checkpoint import Checkpoint

    params, scratch = step.params, out / "scratch"
    engine = scratch / "engine"
    engine.mkdir(parents=True)
    requests, spec = _requests(step), _spec(step)
    with context.ears or begin(step) as ears:
        with as_given(step, inputs["fetch"]):
            weights = convert.checked(inputs["fetch"], params["kind"], spec.model, spec.dimensions)
            checkpoint = Checkpoint.unwritten(spec.model, spec.precision, weights)
            onnxruntime.build_from(checkpoint, inputs["fetch"] / VOCABULARY, spec, engine, context.say,
                                   context.progress, apart=True)
        ears.ask(engine, requests, scratch, spec.profile.max_batch_size)
        context.meanwhile()
        clips = ears.answer(context.progress)
    shutil.rmtree(scratch)
    heard = [{"name": request["name"], "edge": request["edge"], **{key: clip[key] for key in KEPT}}
             for request, clip in zip(requests, clips, strict=True)]
    (out / TRANSCRIPTS).write_text(json.dumps(heard, indent=1) + "\n", encoding="utf-8")


def begin(step: PlannedStep) -> listening.Ears:
    """Start what hears, for a run of this step that is to come: it imports what that takes beside other work."""
    spec = _spec(step)
    return listening.Ears(spec.backend, listening.side_by_side(spec))


def _requests(step: PlannedStep) -> list[dict[str, Any]]:
    params = step.params
    return listening.clip_requests(step.hints["clips"], params["max_input_len"], params["short_window"])


def _spec(step: PlannedStep) -> EngineSpec:
    params, dimensions = step.params, Dimensions(**step.params["dimensions"])
    batch = _batch(dimensions, len(_requests(step)))
    return EngineSpec(
        model=params["model"], backend=params["backend"][0], dimensions=dimensions,
        precision=Precision("float32", 0, "float32"), kv_cache=KVCache("contiguous", 64),
        profile=Profile("reference", batch, 1, WINDOW_FRAMES, 224, "max", 0, 0),
    )


def _batch(dimensions: Dimensions, clips: int) -> int:
    """How many windows are decoded together: their keys and values are HELD bytes or less."""
    window = 4 * dimensions.n_text_layer * dimensions.n_text_state * WINDOW_FRAMES  # of half as many positions, 2 * 4
    return max(1, min(TOGETHER, HELD // window, -(-clips // listening.PROCESSES)))
