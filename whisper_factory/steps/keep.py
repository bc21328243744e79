"""keep: which layers keep 8 bits so that precision.max_wer_delta holds, decided on speech before anything is rounded.

Writes kept.json: the layers, what they cost in bytes, the word error rates of what was tried, and each layer's harm.
The steps after it have the choice among their inputs, and build by it (`settled`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory import keeping
from whisper_factory.engine_spec import EngineSpec, Precision
from whisper_factory.quantization import mixed
from whisper_factory.steps import child
from whisper_factory.steps.context import Context
from whisper_factory.steps.fetch import VOCABULARY, as_given, source
from whisper_factory.whisper.dimensions import Dimensions

if TYPE_CHECKING:
    from whisper_factory.planned_steps import PlannedStep

VERSION = 1
CHOICE = "kept.json"
LISTED = 8  # layers that are told by name; kept.json has all
DONE = re.compile(r"passed \d+\n")  # a line of the child


def tools() -> dict[str, str]:
    """Versions of what decides, read without importing it."""
    return {"numpy": version("numpy")}


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write kept.json.

    Raises:
        UserError: clips or weights that cannot be used.
        GateMissed: the budget cannot be held.
        EnvironmentFault: the child failed; carries its last lines.
    """
    params, fetched, speech = step.params, inputs["fetch"], step.hints["speech"]
    dimensions = Dimensions(**params["dimensions"])
    request = {**params, "weights": str(source(fetched, params["kind"])), "vocabulary": str(fetched / VOCABULARY),
               "speech": speech}
    with as_given(step, fetched):
        child.ask("whisper_factory.keeping.worker", request, out / CHOICE, DONE, context.progress, "clips",
                  keeping.passes(dimensions, len(speech)), "choice of layers")
    for line in told(read(out), dimensions):
        context.say(line)


def read(directory: Path) -> dict[str, Any]:
    """What a finished step says."""
    found: dict[str, Any] = json.loads((directory / CHOICE).read_text(encoding="utf-8"))
    return found


def settled(spec: EngineSpec, inputs: Mapping[str, Path]) -> EngineSpec:
    """The engine with what was chosen, where something was."""
    return replace(spec, precision=precision(spec.precision, inputs))


def most(spec: EngineSpec) -> EngineSpec:
    """The engine, should every layer keep 8 bits."""
    return replace(spec, precision=replace(spec.precision, keep=tuple(mixed.layers(spec.dimensions))))


def precision(declared: Precision, inputs: Mapping[str, Path]) -> Precision:
    """The precision with what was chosen, where something was."""
    return replace(declared, keep=tuple(read(inputs["keep"])["kept"])) if "keep" in inputs else declared


def told(choice: Mapping[str, Any], dimensions: Dimensions) -> list[str]:
    """The choice for a person: which layers, what they cost, what they are good for."""
    rates, kept = choice["wer"], choice["kept"]
    names = [one[0] for one in mixed.candidates(dimensions) if one[0] in kept]
    listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    return [f"{len(kept)} of {len(mixed.layers(dimensions))} layers keep 8 bits, {choice['bytes'] / 1e6:.2f} MB more"
            + (f": {listed}" if kept else ""),
            f"WER {rates['chosen']:.2f} % on {choice['clips']} clips; of the exact model {rates['exact']:.2f} %, with "
            f"every layer at 4 bits {rates['none_kept']:.2f} %"]
