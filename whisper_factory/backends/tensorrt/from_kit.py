"""`python -m whisper_factory.backends.tensorrt.from_kit DIR`: what a kit's build.sh runs on its device."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from whisper_factory import console
from whisper_factory.backends import tensorrt
from whisper_factory.backends.tensorrt.kit import RUNTIME
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError

FAILED = "failed"


def build(kit: Path) -> Path:
    """Build engine/ in a kit's directory and return it.

    Raises:
        UserError: it is there already, or this is no kit.
        EnvironmentFault: TensorRT or the GPU is missing, or the build failed.
    """
    engine, fresh = kit / "engine", kit / ".engine.new"
    if engine.exists():
        raise UserError(f"{engine} is there already; move it away to build it again")
    spec = EngineSpec.load(kit / RUNTIME)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    tensorrt.build(kit / "checkpoint", spec, fresh, lambda line: print(line, flush=True), kit / FAILED)
    fresh.rename(engine)
    return engine


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""

    def work() -> None:
        engine = build(Path(arguments[0]).absolute())
        print(f"engine: {engine}")
        print(f"run it: {sys.executable} -m whisper_factory.run --engine_dir {engine.parent} --input_file FILE.wav")

    return console.run(work, interrupted="")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
