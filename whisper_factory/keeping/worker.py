"""Choosing layers from a request to its answer: what the process that the step `keep` starts does.

ASKED.json: weights and kind (as readers take them), model and dimensions (that they are to be of), vocabulary,
precision, speech (path, name, text, language).
ANSWER.json: {"kept": [...], ...}, see choosing. A line "passed 12" is printed for each clip that went through a model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from whisper_factory import console
from whisper_factory.calibration.clips import Speech
from whisper_factory.calibration.speech import windows
from whisper_factory.calibration.worker import as_stored
from whisper_factory.engine_spec import Precision
from whisper_factory.keeping import choosing
from whisper_factory.keeping.trial import SpokenTrial
from whisper_factory.whisper import readers
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tokenizer import Tokenizer

NO_MATTER = 0  # the seed decides what is added to the clips


def main() -> int:
    """Run it on sys.argv's two paths; returns the exit code."""
    asked, answer = map(Path, sys.argv[1:3])

    def work() -> None:
        made = run(json.loads(asked.read_text(encoding="utf-8")))
        answer.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")

    return console.run(work, interrupted="")


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """The choice for a request.

    Raises:
        UserError: weights or clips that cannot be used.
        GateMissed: the budget cannot be held.
    """
    weights = readers.read(Path(asked["weights"]), asked["kind"])
    readers.check(weights, Dimensions(**asked["dimensions"]), asked["model"])
    tensors, sizes, precision = as_stored(weights), weights.dimensions, Precision.from_dict(asked["precision"])
    tokenizer = Tokenizer.load(Path(asked["vocabulary"]), sizes)
    speech = [Speech(Path(one["path"]), one["name"], one["text"], one["language"]) for one in asked["speech"]]
    assert precision.max_wer_delta is not None
    passed = 0

    def told(amount: float) -> None:
        nonlocal passed
        passed += round(amount)
        print(f"passed {passed}", flush=True)

    made = windows(speech, tensors, sizes, tokenizer, NO_MATTER)
    clips = made[: 1 + len(speech)]  # silence, then each clip: what follows has texts that are not what is said in it
    trial = SpokenTrial(tensors, sizes, precision, clips, tokenizer, told)
    choice = choosing.choose(trial, choosing.bytes_of(sizes, precision), precision.max_wer_delta)
    return {"kept": list(choice.kept), **choice.about}
