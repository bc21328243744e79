"""model=debug at half its size through the factory, in this process: what the tests make, break and make again."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.compositions import composition
from whisper_factory import clips, factory, schema
from whisper_factory.factory import Outcome
from whisper_factory.schema import Composition

SMALL = ("model.dimensions.n_audio_state=64", "model.dimensions.n_audio_head=1", "model.dimensions.n_audio_layer=1",
         "model.dimensions.n_text_state=64", "model.dimensions.n_text_head=1", "model.dimensions.n_text_layer=1")
STEPS = ("fetch", "convert", "build", "reference", "validate")


def composed(*overrides: str) -> Composition:
    """The debug engine's composition, settled."""
    made = composition("model=debug", *SMALL, "profile=duplex_lowmem", *overrides)
    schema.settle(made)
    return made


def produce(folder: Path, *overrides: str, store: Path | None = None, outputs: Path | None = None,
            made: Composition | None = None) -> Outcome:
    """Make the debug engine, in folder/store and folder/outputs."""
    made = made or composed(*overrides)
    made.store.path, made.outputs = str(store or folder / "store"), str(outputs or folder / "outputs")
    return factory.produce(made, "")


def one_clip(folder: Path) -> tuple[str, ...]:
    """Overrides for a validation that hears one clip, once."""
    clip = clips.bundled("quick")[0]
    manifest = folder / "one.jsonl"
    manifest.write_text(json.dumps({"audio": str(clip.path), "text": clip.text}) + "\n", encoding="utf-8")
    return (f"validation.clips='{manifest}'", "validation.min_clips=1", "validation.repeats=1")


def digests(outcome: Outcome) -> dict[str, dict[str, str]]:
    """SHA-256 of what each step wrote, by its record."""
    return {name: {file: about["sha256"] for file, about in found.record["outputs"].items()}
            for name, found in outcome.finished.items()}


@contextmanager
def lines(answers: Mapping[str, Callable[[], object]] = {}) -> Iterator[list[str]]:
    """What the factory logs meanwhile. When it says a line of `answers`, that is called."""
    said: list[str] = []
    logger, handler = logging.getLogger("whisper_factory"), logging.Handler(logging.INFO)

    def emit(record: logging.LogRecord) -> None:
        said.append(record.getMessage())
        answers.get(said[-1], lambda: None)()

    handler.emit = emit  # type: ignore[method-assign]
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def flip(path: Path, byte: int = 100) -> None:
    """Change one byte and nothing else that can be seen: as a failing disk does."""
    seen = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[byte % len(content)] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    path.chmod(seen.st_mode)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def child(function: str, *arguments: object, mounts: bool = False, timeout: float = 200) -> str:
    """Call tests.store.<module>:<name> in a fresh process, which may mount file systems of its own; what it printed."""
    module, _, name = function.partition(":")
    code = f"import sys; from tests.store.{module} import {name}; {name}(*sys.argv[1:])"
    namespace = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else []), "--mount"] if mounts else []
    done = subprocess.run([*namespace, sys.executable, "-c", code, *map(str, arguments)], capture_output=True,
                          text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def mount(*arguments: object) -> None:
    """Only in a process that `child` gave mounts of its own."""
    subprocess.run(["mount", *map(str, arguments)], check=True)
