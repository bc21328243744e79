"""`python -m whisper_factory.run`: try an engine on audio files. Imports neither Hydra nor torch.

Transcripts go to standard output, one line a file; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory import console
from whisper_factory.errors import UserError, choices
from whisper_factory.flags import Parser, add_options, options

if TYPE_CHECKING:
    from whisper_factory.engine_spec import EngineSpec
    from whisper_factory.resident import Measured
    from whisper_factory.whisper.transcribe import Transcript

log = logging.getLogger("whisper_factory")
LOG_LEVELS = ("debug", "info", "warning", "error")


def parser() -> Parser:
    """The flags: those of TensorRT-LLM's Whisper example where it has them."""
    flags = Parser(prog="python -m whisper_factory.run", description="Transcribe audio files with an engine.",
                   allow_abbrev=False)
    add = flags.add_argument
    add("--engine_dir", type=Path, required=True, metavar="DIR", help="what a build printed, or its engine/")
    audio = flags.add_mutually_exclusive_group(required=True)
    audio.add_argument("--input_file", type=Path, nargs="+", metavar="FILE", action="extend",
                       help="WAV or FLAC, any rate, any number of channels, any length")
    audio.add_argument("--dataset", type=Path, metavar="MANIFEST", help='JSON lines of {"audio": "clip.wav", "text": '
                       '"what is said"}, paths relative to it; prints the word error rate too')
    add_options(flags)
    add("--output_json", type=Path, metavar="FILE", help="write the transcripts with tokens, windows and timings")
    add("--report_memory", action="store_true", help="memory the engine took, loaded and at its peak, "
        "against what was predicted")
    add("--log_level", default="info", metavar="LEVEL", help=f"one of {', '.join(LOG_LEVELS)} (default: info)")
    add("--name", default="", help="a label for this run, repeated in the report")
    add("--max_input_len", type=int, metavar="FRAMES", help="checked against the engine's; it is a build setting")
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 our bug, 2 the user's mistake, 4 the environment."""
    return console.run(lambda: run(_parse(arguments)))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    known = parser().parse(arguments)
    if known.log_level not in LOG_LEVELS:
        raise UserError(f"unknown --log_level '{known.log_level}'; {choices(known.log_level, LOG_LEVELS)}")
    return known


def run(wanted: argparse.Namespace) -> None:
    """Transcribe and print. What can be checked is checked before the engine is loaded."""
    _set_up_logging(wanted.log_level)
    # Here, so that --help and a mistyped flag answer at once.
    from whisper_factory.engine_spec import EngineSpec
    from whisper_factory.whisper.options import check, engine_directory

    spec = EngineSpec.load(engine_directory(wanted.engine_dir))
    asked = options(wanted)
    check(asked, spec)
    _check_lengths(wanted, spec)

    from whisper_factory import backends, resident
    from whisper_factory.threads import import_numpy

    import_numpy()
    from whisper_factory.clips import from_manifest
    from whisper_factory.whisper.audio import read_audio
    from whisper_factory.whisper.transcribe import Transcriber

    said = from_manifest(wanted.dataset) if wanted.dataset else []
    wanted.input_file = wanted.input_file or [clip.path for clip in said]
    clips = [read_audio(path) for path in wanted.input_file]
    meter = resident.Meter(backends.get(spec.backend).LIBRARIES)
    start = time.perf_counter()
    transcriber = Transcriber.load(wanted.engine_dir, wanted.threads)
    loaded = time.perf_counter()
    meter.loaded()
    transcripts = transcriber.transcribe(clips, asked)
    took = time.perf_counter() - loaded
    for path, transcript in zip(wanted.input_file, transcripts, strict=True):
        _print(path, transcript, spec)
    seconds = sum(transcript.seconds for transcript in transcripts)
    label = f"{wanted.name}: " if wanted.name else ""
    log.info("%s%.2f s of audio in %.2f s, real-time factor %.3f (engine loaded in %.2f s)",
             label, seconds, took, took / seconds, loaded - start)
    if wanted.report_memory:
        _report_memory(meter.read(), spec)
    if said:
        from whisper_factory import dataset

        heard = [(clip.text, transcript.text) for clip, transcript in zip(said, transcripts, strict=True)]
        print(dataset.summary(dataset.score(heard), seconds, took), flush=True)
    if wanted.output_json:
        _write_report(wanted, transcripts, {"load": loaded - start, "transcribe": took})


def _report_memory(found: Measured, spec: EngineSpec) -> None:
    """Measured against predicted. The peak that is predicted is the most the engine can take, whatever it was given."""
    from whisper_factory import memory

    planned, mb, shape = memory.estimate(spec), memory.MB, spec.profile
    log.info("memory: %s", found)
    log.info("memory: loaded %.1f MB, predicted %.1f MB; at peak %.1f MB, predicted at most %.1f MB (batch %d x beam "
             "%d, %d frames, %d tokens)", found.loaded / mb, planned.load / mb, found.peak / mb, planned.peak / mb,
             shape.max_batch_size, shape.max_beam_width, shape.max_input_len, shape.max_new_tokens)


def _check_lengths(wanted: argparse.Namespace, spec: EngineSpec) -> None:
    asked, built = wanted.max_input_len, spec.profile.max_input_len
    if asked is not None and asked != built:
        raise UserError(f"--max_input_len {asked} disagrees with the engine, which was built for {built} mel frames "
                        f"({built / 100:g} s; longer audio is cut into windows); leave the flag out, or build an "
                        f"engine with profile.max_input_len={asked}")
    if wanted.output_json and not wanted.output_json.absolute().parent.is_dir():
        raise UserError(f"--output_json {wanted.output_json}: its directory does not exist; create it first")


def _set_up_logging(level: str) -> None:
    log.handlers.clear()
    log.propagate = False
    log.setLevel(level.upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)


def _print(path: Path, transcript: Transcript, spec: EngineSpec) -> None:
    if transcript.seams:
        places = ", ".join(f"{seam:.2f}" for seam in transcript.seams)
        log.info("%s: longer than the engine's %g s, cut in pauses: at %s s", path,
                 spec.profile.max_input_len / 100, places)
    for warning in transcript.warnings:
        log.warning("warning: %s: %s", path, warning)
    print(f"{path}: {transcript.text}", flush=True)


def _write_report(wanted: argparse.Namespace, transcripts: list[Transcript], took: dict[str, float]) -> None:
    files = [{"path": str(path), **dataclasses.asdict(transcript), "seams": transcript.seams}
             for path, transcript in zip(wanted.input_file, transcripts, strict=True)]
    text = json.dumps({"name": wanted.name, "files": files, "seconds": took}, indent=1, ensure_ascii=False)
    try:
        wanted.output_json.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"--output_json {wanted.output_json} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
