"""TensorRT engines, built: how long, how large, and how that is next to the memory plan, as a Markdown table.

    python benchmarks/tensorrt_builds.py --models tiny.en base

Builds encoder and decoder of every model, precision and profile with TensorRT for RTX, which needs no GPU. MB are
10^6 bytes. `weights` is what the builder reports, `engine` the files; the plan's share of each is what footprint.py
computes. `activations` is what the builder reserves for the decoder and for the encoder, of which the larger counts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from precisions import machine

from tests.compositions import composition
from whisper_factory import backends, plan
from whisper_factory.backends import tensorrt
from whisper_factory.backends.tensorrt import loading
from whisper_factory.backends.tensorrt.footprint import activations, engine_bytes, weights
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.steps import convert, fetch
from whisper_factory.steps.context import Context

PROFILES = ("interactive", "batch", "duplex_lowmem")
PRECISIONS = ("float16", "int8", "int4")


def checkpoint(folder: Path, model: str, precision: str) -> Path:
    """A canonical checkpoint of real weights."""
    made = composition(f"model={model}", f"precision={precision}")
    step = plan.make(made, lambda name, key: False).steps[0]
    fetched, out = folder / model / precision / "fetched", folder / model / precision / "checkpoint"
    fetched.mkdir(parents=True)
    out.mkdir()
    fetch.run(step, {}, fetched, Context(print, folder / "downloads", folder / "failed"))
    spec = made.engine_spec()
    convert.checkpoint(fetched, step.params["kind"], out, model, spec.dimensions, spec.precision)
    return out


def declared(model: str, precision: str, profile: str, device: str) -> EngineSpec:
    """The engine of a composition."""
    spec: EngineSpec = composition(f"profile={profile}", f"model={model}", f"precision={precision}", "backend=tensorrt",
                                   "kv_cache=contiguous", f"device={device}").engine_spec()
    return backends.get("tensorrt").settle(spec)


def built(source: Path, spec: EngineSpec, folder: Path) -> dict[str, Any]:
    """What the builder told of both stages."""
    packed, engine = folder / "packed", folder / "engine"
    packed.mkdir(parents=True)
    engine.mkdir()
    tensorrt.pack(source, spec, packed, lambda line: None)
    tensorrt.build(packed, spec, engine, lambda line: None, folder / "failed")
    stages: dict[str, Any] = loading.read_report(engine)["stages"]
    return stages


def row(model: str, precision: str, profile: str, spec: EngineSpec, stages: dict[str, Any]) -> str:
    """A line of the table, both stages together."""
    planned, constants = sum(engine_bytes(spec).values()), sum(weights(spec).values())
    seconds, told, files = (sum(stage[key] for stage in stages.values())
                            for key in ("seconds", "weights_bytes", "engine_bytes"))
    works = " + ".join(f"{stage['activation_bytes'] / 1e6:.0f}" for stage in stages.values())
    layers = " + ".join(str(stage["layers"]) for stage in stages.values())
    cells = (f"{model} {precision} {profile}", f"{seconds:.1f} s", layers, f"{told / 1e6:.1f} MB",
             f"{100 * constants / told:.1f} %", f"{files / 1e6:.1f} MB", f"{100 * planned / files:.1f} %",
             f"{works} MB", f"{activations(spec) / 1e6:.0f} MB")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the command."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    flags.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    flags.add_argument("--profiles", nargs="+", default=list(PROFILES))
    flags.add_argument("--device", default="rtx_4090")
    wanted = flags.parse_args()
    print(f"{wanted.device}; {machine({name: version for name, version in tensorrt.tools().items()}, 2)}\n")
    print("| engine | build | layers | weights | plan's | engine | plan's | activations | plan's |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for model in wanted.models:
        for precision in wanted.precisions:
            with tempfile.TemporaryDirectory() as scratch:
                source = checkpoint(Path(scratch), model, precision)
                for profile in wanted.profiles:
                    spec = declared(model, precision, profile, wanted.device)
                    stages = built(source, spec, Path(scratch) / profile)
                    print(row(model, precision, profile, spec, stages), flush=True)


if __name__ == "__main__":
    main()
