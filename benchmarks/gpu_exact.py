"""Which of two engines is off, where the CPU's and the GPU's hear other tokens: both beside exact arithmetic.

    python benchmarks/gpu_exact.py PAYLOAD OUT/all.json --model base --precision int8 --window 30s

Needs no GPU: reads what `gpu.py accuracy` found, and hears the clips on which the two differ once more with an engine
of the very same integers (or float16 weights), widened to float32, which computes in float32 throughout.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import gpu_engines
import numpy as np
import paired

from whisper_factory import backends
from whisper_factory.engine_spec import Precision
from whisper_factory.steps import convert
from whisper_factory.whisper.checkpoint import Checkpoint, write_checkpoint
from whisper_factory.whisper.normalize import edit_distance
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.readers import Weights
from whisper_factory.whisper.tensors import tensor_shapes
from whisper_factory.whisper.transcribe import Transcriber

SHAPES = {"short": {"name": "duplex_lowmem"}, "30s": {"name": "batch", "max_beam_width": 1}}
EXACT = Precision("float32", 0, "float32")
VOCABULARY = "vocabulary.tiktoken"


def exact(payload: Path, work: Path, model: str, precision: str, window: str) -> Transcriber:
    """The engine of the widened weights."""
    spec = gpu_engines.declared(model, precision, gpu_engines.profile(**SHAPES[window]), "cpu")
    rounded, widened, engine = (work / name for name in ("rounded", "widened", "engine"))
    for folder in (rounded, engine):
        folder.mkdir()
    source = payload / "sources" / model
    convert.checkpoint(source, "ctranslate2", rounded, model, spec.dimensions, spec.precision)
    read = Checkpoint.open(rounded)
    tensors = {name: read.tensor(name).astype(np.float32) for name in tensor_shapes(spec.dimensions)}
    write_checkpoint(widened, model, EXACT, Weights(spec.dimensions, tensors))
    shutil.copyfile(source / VOCABULARY, widened / VOCABULARY)
    backends.get(spec.backend).build(widened, replace(spec, precision=EXACT), engine, lambda line: None,
                                     work / "failed")
    return Transcriber.load(engine)


def main() -> None:
    """Print words wrong, and tokens shared."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("payload", type=Path)
    flags.add_argument("results", type=Path)
    flags.add_argument("--model", default="base")
    flags.add_argument("--precision", default="int8", choices=gpu_engines.PRECISIONS)
    flags.add_argument("--window", default="30s", choices=SHAPES)
    wanted = flags.parse_args()
    read = json.loads(wanted.results.read_text(encoding="utf-8"))
    name = f"accuracy/{wanted.model}/{wanted.precision}/{wanted.window}"
    cpu, gpu = read[f"{name}/cpu"], read[f"{name}/cuda"]
    clips = gpu_engines.clips(wanted.payload)
    apart = [place for place, tokens in enumerate(cpu["tokens"]) if tokens != gpu["tokens"][place]]
    with tempfile.TemporaryDirectory() as work:
        engine = exact(wanted.payload, Path(work), wanted.model, wanted.precision, wanted.window)
        asked = Options(language=None if wanted.model.endswith(".en") else "en")
        heard = engine.transcribe([clips[place]["audio"] for place in apart], asked)
    said = [clips[place]["text"] for place in apart]
    wrong = sum(paired.errors(said, [one.text for one in heard]))
    print(f"{len(apart)} of {len(clips)} clips; exact: {wrong} words wrong")
    for name, result in (("CPU", cpu), ("GPU", gpu)):
        tokens = [result["tokens"][place] for place in apart]
        wrong = sum(paired.errors(said, [result["texts"][place] for place in apart]))
        same = sum(one.tokens == other for one, other in zip(heard, tokens, strict=True))
        edits = sum(edit_distance(one.tokens, other) for one, other in zip(heard, tokens, strict=True))
        print(f"{name}: {wrong} words wrong; the exact engine's very tokens on {same}, {edits} edits from them")


if __name__ == "__main__":
    main()
