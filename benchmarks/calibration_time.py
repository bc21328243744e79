"""What a calibration takes: time and peak memory of its process, with the bundled clips, as a Markdown table.

    python benchmarks/calibration_time.py --models tiny.en base small.en

Weights are random, of each model's sizes: rounding takes as long whatever they say. Run it on a machine with nothing
else to do.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from precisions import machine

from tests.compositions import composition
from whisper_factory import sources
from whisper_factory.calibration import clips, duration
from whisper_factory.engine_spec import Precision
from whisper_factory.measure import _versions
from whisper_factory.progress import silent
from whisper_factory.steps import calibrating, fetch
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers.random import FILE
from whisper_factory.whisper.tensors import is_quantized, tensor_shapes


def measured(model: str, method: str, group_size: int, folder: Path) -> tuple[float, float]:
    """Seconds, and GB at the peak."""
    sizes = Dimensions(**vars(composition(f"model={model}").model.dimensions))
    (folder / FILE).write_text(json.dumps({"seed": 0, "dimensions": asdict(sizes)}), encoding="utf-8")
    vocabulary = sources.MULTILINGUAL if sizes.is_multilingual else sources.GPT2
    found = next(path for file in vocabulary.packaged if (path := sources.packaged(file)))
    made = folder / fetch.VOCABULARY
    if found.suffix == ".json":
        from whisper_factory.whisper.vocabulary import ranks_from_tokenizer_json, write_rank_file

        write_rank_file(made, ranks_from_tokenizer_json(found))
    else:
        made.write_bytes(found.read_bytes())
    speech = [asdict(one) | {"path": str(one.path)} for one in clips.bundled_for(sizes)]
    layers, start = sum(map(is_quantized, tensor_shapes(sizes))), time.perf_counter()
    calibrating.calibrate(folder, "random", layers, made, Precision("int4", 4, "float16", group_size),
                          {"method": method, "seed": 0, "clips": "", "version": 0}, speech, folder / "out", silent)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base", "small.en"], help="the smallest first")
    parser.add_argument("--method", default="gptq")
    parser.add_argument("--group_size", type=int, default=0, help="neighbours that share a scale; 0: a row's do")
    options = parser.parse_args()
    print("| model | seconds | the plan says | peak GB |\n|---|---|---|---|", flush=True)
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak = measured(model, options.method, options.group_size, Path(folder))
        sizes = Dimensions(**vars(composition(f"model={model}").model.dimensions))
        said = duration(sizes, len(clips.bundled_for(sizes)))
        print(f"| {model} | {seconds:.0f} | {said} | {peak:.2f} |", flush=True)
    print(f"\n{machine(_versions('onnxruntime'), 2)}")


if __name__ == "__main__":
    main()
