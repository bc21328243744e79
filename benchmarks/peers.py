"""Side by side with faster-whisper, openai-whisper and whisper.cpp: latency, first token, memory, word errors.

    python benchmarks/peers.py --work outputs/peers                          # tiny.en, short clips
    python benchmarks/peers.py --work outputs/peers --model base
    python benchmarks/peers.py --work outputs/peers --long 30                # and half an hour of audio, in batches
    python benchmarks/peers.py --work outputs/peers --quick                  # does it run: 6 clips, 2 rounds

All hear the same clips (the bundled ones of at most 7 s, and --manifest's) with the same weights, on the same number of
threads, greedily, without timestamps or voice detection, each in a process of its own that is warmed up. In every round
all take their turn, in another order each time; what is compared is compared within a round, and of the rounds the
median counts. Whisper.cpp's files are made by its own converter and quantiser from the weights that we read.

With --long, joined clips are transcribed by our batch profile and by faster-whisper's batched pipeline, eight windows
in a batch (or --their-batch), greedily and with four beams; both get our windows, as its voice detection would cut
elsewhere. Ours hears two batches at once.

faster-whisper is installed into an environment under --work, whisper.cpp is built there (see whisper_cpp.py), and
openai-whisper is the one of the `dev` extra. What --work holds is used again: a run that was cut short goes on with the
round it was in, as long as code, clips and versions are the same, and AMX is there or not as before (without_amx.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import peer_tables
import whisper_cpp
from keeping import fingerprint
from memory import build
from numpy.typing import NDArray
from peer_running import HERE, Heard, System, cold_start, hear
from precisions import machine

from whisper_factory import backends, clips
from whisper_factory.backends.onnx_graph.runtime import processor_flags
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper import windows
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE

PEERS = ("faster-whisper==1.2.1", "ctranslate2==4.8.5")
SYSTEMS = ("faster_whisper", "whisper_cpp", "openai_whisper")
QUANTISED = ("q5_0", "q8_0")
SHORT_SECONDS, PAUSE_SECONDS, LONG_BATCH, LONG_BEAMS = 7.0, 0.3, 8, (1, 4)
BUSY = 0.5  # load average from which on a measurement is not to be believed


def short_clips(work: Path, manifest: Path | None, most: int | None) -> list[Heard]:
    """Clips of at most 7 s; `most` of them, from the first to the last."""
    known = [*clips.bundled("full"), *(clips.from_manifest(manifest) if manifest else [])]
    folder = work / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    short = [clip for clip in known if clip.seconds <= SHORT_SECONDS]
    most = min(most or len(short), len(short))
    chosen = [short[index * len(short) // most] for index in range(most)]  # of every kind
    return [_written(folder / f"{number}.f32", read_audio(clip.path), clip.text) for number, clip in enumerate(chosen)]


def _written(file: Path, samples: NDArray[np.float32], text: str, spec: EngineSpec | None = None) -> Heard:
    samples.astype(np.float32).tofile(file)
    cut = windows.split(samples, "max", spec) if spec else []
    return Heard(file, len(samples) / SAMPLE_RATE, text,
                 tuple((window.start / SAMPLE_RATE, window.end / SAMPLE_RATE) for window in cut))


def long_clip(work: Path, manifest: Path | None, minutes: float, spec: EngineSpec) -> Heard:
    """All clips, of a manifest of human speech if there is one, joined with pauses, again and again."""
    known = clips.from_manifest(manifest) if manifest else clips.bundled("full")
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    spoken = [np.concatenate([read_audio(clip.path), pause]) for clip in known]
    parts, texts, samples = [], [], 0
    while samples < minutes * 60 * SAMPLE_RATE:
        number = len(parts) % len(known)
        parts.append(spoken[number])
        texts.append(known[number].text)
        samples += len(spoken[number])
    return _written(work / "long.f32", np.concatenate(parts), " ".join(texts), spec)


def short_systems(model: str, profiles: Iterable[str], work: Path) -> tuple[list[System], dict[str, Path]]:
    """Ours by profile, then the peers; and our engines."""
    engines = {profile: build(work, f"profile={profile}", f"model={model}", "precision=int8")[1]
               for profile in profiles}
    here, converted = Path(sys.executable), whisper_cpp.ctranslate2_model(model, work)
    source, made = whisper_cpp.fetch_and_build(work)
    cpp = whisper_cpp.compile_against(source, made, HERE / "peer_whisper_cpp.cpp", work / "peer_whisper_cpp")
    there = whisper_cpp.environment(work / "environment", PEERS) / "python"
    return [
        *(System(f"whisper_factory {profile}, int8", "whisper_factory", here, engine)
          for profile, engine in engines.items()),
        System(peer_tables.FASTER_WHISPER, "faster_whisper", there, converted),
        *(System(f"whisper.cpp {precision}", "whisper_cpp", cpp, file)
          for precision, file in whisper_cpp.ggml(model, work, QUANTISED).items()),
        System("openai-whisper float32", "openai_whisper", here, whisper_cpp.openai_file(model, work)),
    ], engines


def long_systems(model: str, work: Path, theirs: int) -> tuple[list[System], EngineSpec]:
    """Ours and faster-whisper's, greedy and by beam search; and our engine's declaration.

    Args:
        theirs: windows of faster-whisper's batches; ours have LONG_BATCH, and two of them are heard at once.
    """
    spec, engine = build(work, "profile=batch", f"model={model}", "precision=int8")
    there = whisper_cpp.environment(work / "environment", PEERS) / "python"
    converted = whisper_cpp.ctranslate2_model(model, work)
    return [System(f"{name}, {'greedy' if beams == 1 else f'{beams} beams'}", worker, program, weights, beams,
                   batch)
            for beams in LONG_BEAMS
            for name, worker, program, weights, batch in (
                ("whisper_factory batch, int8", "whisper_factory", Path(sys.executable), engine, LONG_BATCH),
                ("faster-whisper batched, int8", "faster_whisper", there, converted, theirs))], spec


def rounds(systems: list[System], heard: list[Heard], engines: dict[str, Path], options: argparse.Namespace,
           count: int, work: Path) -> list[dict[str, Any]]:
    """Every system in turn, as often as asked; each round is kept, and not run again."""
    language = None if options.model.endswith(".en") else "en"
    folder = work / "rounds" / fingerprint(
        repr(systems), versions(), options.threads, "amx_int8" in processor_flags(), scripts="peer_*",
        files=tuple(clip.file for clip in heard))
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        file = folder / f"{number}.json"
        if not file.exists():
            turn = number % len(systems)
            told = {}
            for system in [*systems[turn:], *systems[:turn]]:
                print(f"round {number + 1} of {count}: {system.name}", file=sys.stderr, flush=True)
                told[system.name] = hear(system, heard, language, options.threads, work)
            cold = {profile: cold_start(engine, options.threads) for profile, engine in engines.items()}
            (folder / "unfinished").write_text(json.dumps({"systems": told, "cold": cold}), encoding="utf-8")
            (folder / "unfinished").rename(file)
        found.append(json.loads(file.read_text(encoding="utf-8")))
    return found


def versions() -> dict[str, str]:
    """What ran."""
    peers = dict(entry.split("==") for entry in PEERS)
    return {**backends.get("onnxruntime").tools(), **peers, "whisper.cpp": whisper_cpp.VERSION,
            **{name: metadata.version(name) for name in ("openai-whisper", "torch", "numpy")}}


def main() -> None:
    """Prepare, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="what is installed, built and measured; 2 GB, kept")
    parser.add_argument("--model", default="tiny.en", choices=("tiny.en", "base"))
    parser.add_argument("--profiles", nargs="*", default=["duplex_lowmem", "interactive"],
                        help="named none: no short clips")
    parser.add_argument("--peers", nargs="+", default=list(SYSTEMS), choices=SYSTEMS, help="of short clips")
    parser.add_argument("--clips", type=int, help="only so many (default: all)")
    parser.add_argument("--manifest", type=Path, help="more clips, as human_clips.py makes them; --long then takes "
                        "these alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--long", type=float, metavar="MINUTES", help="also transcribe so much audio in batches")
    parser.add_argument("--long-rounds", type=int, default=3)
    parser.add_argument("--their-batch", type=int, default=LONG_BATCH, help="windows of faster-whisper's batches")
    parser.add_argument("--quick", action="store_true", help="6 clips, 2 rounds, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.clips, options.rounds, options.long_rounds = options.clips or 6, 2, 1
    if os.getloadavg()[0] > BUSY:
        print(f"something else is at work here (load {os.getloadavg()[0]:.1f}): the times will tell little",
              file=sys.stderr)
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.profiles:
        systems, engines = short_systems(options.model, options.profiles, work)
        systems = [one for one in systems if one.worker in ("whisper_factory", *options.peers)]
        heard = short_clips(work, options.manifest, options.clips)
        found = rounds(systems, heard, engines, options, options.rounds, work)
        print("\n".join(peer_tables.short(options.model, [clip.text for clip in heard],
                                          sum(clip.seconds for clip in heard), found)), flush=True)
    if options.long:
        systems, spec = long_systems(options.model, work, options.their_batch)
        clip = long_clip(work, options.manifest, options.long, spec)
        found = rounds(systems, [clip], {}, options, options.long_rounds, work)
        print("\n".join(peer_tables.long(options.model, clip.text, clip.seconds, found)), flush=True)
    print(f"\n{machine(versions(), options.threads)}.")


if __name__ == "__main__":
    main()
