"""What MatMulNBits' accuracy level costs and gains, as a Markdown table: the reason for pack.ACCURACY_LEVEL.

    python benchmarks/accuracy_levels.py --models tiny.en base

For each precision and level: the bundled clips of one 7.5 s window on which the engine gives the very tokens of the
float32 engine (same window), and the time of one decoding step and of one encoding. The encoder is MatMulNBits here,
which in 8 bits it no longer is (benchmarks/encoder.py).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
from precisions import machine

from tests.compositions import composition
from whisper_factory import backends, clips, plan
from whisper_factory.backends.engines import Engine
from whisper_factory.backends.onnxruntime import assemble, head, pack
from whisper_factory.backends.onnxruntime.pack import OnnxRuntimeDialect
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.measure import _versions
from whisper_factory.steps import convert, fetch
from whisper_factory.steps.context import Context
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.transcribe import Transcriber

LEVELS = (4, 1)


def build(folder: Path, model: str, precision: str, level: int, encoder: type[OnnxRuntimeDialect]) -> Path:
    """An engine of profile=duplex_lowmem whose MatMulNBits have this accuracy level. `encoder` spells an 8-bit one."""
    made = composition("profile=duplex_lowmem", f"model={model}", f"precision={precision}")
    spec: EngineSpec = made.engine_spec()
    step = plan.make(made, lambda name, key: False).steps[0]
    fetched, checkpoint, engine = (folder / model / name / precision / str(level) for name in "fce")
    for directory in (fetched, checkpoint, engine):
        directory.mkdir(parents=True)
    fetch.run(step, {}, fetched, Context(print, folder / "downloads", folder / "failed"))
    convert.checkpoint(fetched, step.params["kind"], checkpoint, model, spec.dimensions, spec.precision)
    with mock.patch.object(pack, "ACCURACY_LEVEL", level), mock.patch.object(head, "ACCURACY_LEVEL", level), \
            mock.patch.object(assemble, "ManyRowsDialect", encoder):
        backends.get("onnxruntime").build(checkpoint, spec, engine, lambda line: None, folder / "failed")
    return engine


def transcriber(folder: Path, model: str, precision: str, level: int) -> Transcriber:
    """An engine whose quantised linears are MatMulNBits of this accuracy level, in the encoder too."""
    return Transcriber.load(build(folder, model, precision, level, OnnxRuntimeDialect))


def times(engine: Engine) -> tuple[float, float]:
    """Milliseconds of one encoding of the longest window, and of one decoding step; medians of 15 and 60."""
    mel = np.zeros((1, engine.spec.dimensions.n_mels, engine.spec.window_frames), np.float32)
    encoding, decoding = [], []
    for _ in range(15):
        start = time.perf_counter()
        utterance = engine.encode(mel)
        encoding.append(time.perf_counter() - start)
        utterance.decode(np.array([[50257, 50362]]))
        for _ in range(4):
            start = time.perf_counter()
            utterance.decode(np.array([[262]]))
            decoding.append(time.perf_counter() - start)
    return 1000 * median(encoding), 1000 * median(decoding)


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    options = parser.parse_args()
    heard = [read_audio(clip.path) for clip in clips.bundled("full") if clip.seconds <= 7.5]
    print("| model | precision | accuracy level | same tokens | encode ms | ms per token |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            float32 = transcriber(Path(name), model, "float32", 0)
            wanted = [float32.transcribe([audio])[0].tokens for audio in heard]
            encode, step = times(float32.engine)
            print(f"| {model} | float32 | | {len(heard)} of {len(heard)} | {encode:.0f} | {step:.2f} |", flush=True)
            for precision in ("int8", "int4"):
                for level in LEVELS:
                    engine = transcriber(Path(name), model, precision, level)
                    same = sum(engine.transcribe([audio])[0].tokens == tokens
                               for audio, tokens in zip(heard, wanted, strict=True))
                    encode, step = times(engine.engine)
                    print(f"| {model} | {precision} | {level} | {same} of {len(heard)} | {encode:.0f} | {step:.2f} |",
                          flush=True)
    print(f"\n{machine(_versions('onnxruntime'), float32.engine.threads)}")


if __name__ == "__main__":
    main()
