"""`python -m whisper_factory.bench engine_dir=... clips=manifest.jsonl`: how fast an engine is on your own clips.

Clips are heard one at a time, as by someone who waits: after a warm-up all of them in turn, and that `repeats` times.
Prints a table on standard output, and writes all of it, each clip too, with json=FILE. Imports neither Hydra nor torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory import bench_report, console
from whisper_factory.errors import UserError
from whisper_factory.flags import Parser, add_options, options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from whisper_factory.bench_report import Run
    from whisper_factory.stopwatch import Stopwatch
    from whisper_factory.whisper.options import Options
    from whisper_factory.whisper.transcribe import Transcriber

AUDIO = (".flac", ".wav")  # what is taken from a folder


def parser() -> Parser:
    """The flags; `key=value` means `--key value`."""
    flags = Parser(prog="python -m whisper_factory.bench", description="Time an engine on your own clips. key=value "
                   "may be written for --key value.", allow_abbrev=False)
    add = flags.add_argument
    add("--engine_dir", type=Path, required=True, metavar="DIR", help="what a build printed, or its engine/")
    audio = flags.add_mutually_exclusive_group()
    audio.add_argument("--clips", "--dataset", type=Path, metavar="MANIFEST", help='JSON lines of {"audio": "clip.wav",'
                       ' "text": "what is said"}, paths relative to it; tells the word error rate too')
    audio.add_argument("--files", "--input_file", nargs="+", metavar="FILE", action="extend",
                       help="WAV or FLAC, folders of them, or patterns (default: the 12 bundled clips)")
    add("--repeats", type=int, default=5, metavar="N", help="how often each clip is heard (default: 5)")
    add("--json", "--output_json", type=Path, metavar="FILE", help="write the report, with every clip's numbers")
    add_options(flags)
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 our bug, 2 the user's mistake, 4 the environment."""
    flags = parser()
    return console.run(lambda: bench(flags.parse(_dashed(sys.argv[1:] if arguments is None else arguments,
                                                         flags.names()))))


def _dashed(arguments: list[str], names: list[str]) -> list[str]:
    """key=value as two arguments, --key and value; a file may have such a name only after another one."""
    dashed: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        known = f"--{key}" in names or (equals and key.isidentifier() and not Path(argument).exists())
        dashed += [f"--{key}", value] if equals and known else [argument]
    return dashed


def bench(wanted: argparse.Namespace) -> None:
    """Measure and print. What can be checked is checked before the engine is loaded."""
    from whisper_factory.engine_spec import EngineSpec
    from whisper_factory.whisper.options import check, engine_directory

    spec = EngineSpec.load(engine_directory(wanted.engine_dir))
    asked = options(wanted)
    check(asked, spec)
    _check(wanted)
    named = _clips(wanted)

    from whisper_factory import backends, resident
    from whisper_factory.threads import import_numpy

    import_numpy()
    from whisper_factory.stopwatch import Stopwatch
    from whisper_factory.whisper.audio import read_audio
    from whisper_factory.whisper.transcribe import Transcriber

    audio = [read_audio(path) for path, _ in named]
    meter = resident.Meter(backends.get(spec.backend).LIBRARIES)
    start = time.perf_counter()
    transcriber = Transcriber.load(wanted.engine_dir, wanted.threads)
    load_s = time.perf_counter() - start
    meter.loaded()
    stopwatch = Stopwatch(transcriber.engine)
    first_s = _warm_up(transcriber, audio, asked)
    rounds = [_round(transcriber, stopwatch, audio, asked) for _ in range(wanted.repeats)]
    report = bench_report.make(spec, named, rounds, meter.read())
    report.update(threads=transcriber.engine.threads, options=dataclasses.asdict(asked), load_s=load_s,
                  first_clip_s=first_s)
    print("\n".join(bench_report.table(report)), flush=True)
    if wanted.json:
        _write(wanted.json, report)


def _warm_up(transcriber: Transcriber, audio: list[NDArray[np.float32]], asked: Options) -> float:
    """Hear the first clip, whose seconds are returned, and the longest: memory is as large then as it gets."""
    start = time.perf_counter()
    transcriber.transcribe(audio[:1], asked)
    first = time.perf_counter() - start
    transcriber.transcribe([max(audio, key=len)], asked)
    return first


def _round(transcriber: Transcriber, stopwatch: Stopwatch, audio: list[NDArray[np.float32]],
           asked: Options) -> list[Run]:
    """Each clip once."""
    runs = []
    for clip in audio:
        (transcript,), lap = stopwatch.time(partial(transcriber.transcribe, [clip], asked))
        runs.append((transcript, lap))
    return runs


def _check(wanted: argparse.Namespace) -> None:
    if wanted.repeats < 1:
        raise UserError(f"repeats={wanted.repeats} measures nothing; choices: 1 or more")
    if wanted.json and not wanted.json.absolute().parent.is_dir():
        raise UserError(f"json={wanted.json}: its directory does not exist; create it first")


def _clips(wanted: argparse.Namespace) -> list[tuple[Path, str | None]]:
    """Audio files, and what is said in them where that is known."""
    from whisper_factory import clips

    if wanted.files:
        return [(path, None) for name in wanted.files for path in _files(name)]
    known = clips.from_manifest(wanted.clips) if wanted.clips else clips.bundled("quick")
    return [(clip.path, clip.text) for clip in known]


def _files(name: str) -> list[Path]:
    """A file, those of a folder, or those of a pattern that the shell has left as it is."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in AUDIO)
    elif path.exists():
        return [path]
    else:
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not found and not glob.has_magic(name):
            return [path]  # reading it says what is wrong
    if not found:
        raise UserError(f"files={name}: no WAV or FLAC file there; name files, a folder or a pattern")
    return found


def _write(file: Path, report: dict[str, Any]) -> None:
    try:
        text = json.dumps(report, indent=1, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"json={file} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
