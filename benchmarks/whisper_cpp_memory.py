"""Peak memory beside whisper.cpp's own program: tiny.en, one clip of 7 s, as a Markdown table.

    python benchmarks/whisper_cpp_memory.py --work outputs/whisper_cpp

Ours is `python -m whisper_factory.run` with an int8 engine for duplex_lowmem, Python and its libraries included.
Theirs is whisper-cli with the same weights in q5_0 and q8_0: as it comes (five beams, and all of its audio context,
30 s); greedy, as ours is; and greedy with --audio-ctx of 7.5 s, which it calls experimental. Greedy through its Python
binding too, where pywhispercpp is installed. Each run is a fresh process, and the programs take turns.

whisper.cpp is fetched and built by whisper_cpp.py, which says what that needs. What --work names is kept: a second run
only measures.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import whisper_cpp
from memory import build
from precisions import machine

from whisper_factory import backends, clips, dataset
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE

QUANTISED = ("q5_0", "q8_0")
GREEDY = ("--beam-size", "1", "--best-of", "1")
MODES = {"as it comes": (), "greedy": GREEDY, "greedy, 7.5 s of context": (*GREEDY, "--audio-ctx", "375")}
SPOKEN, SECONDS, THREADS, RUNS = ("sample", "lamp"), 7.0, 2, 5

BINDING = """
import sys
from pywhispercpp.model import Model
model = Model(sys.argv[1], n_threads=int(sys.argv[3]), print_progress=False, print_realtime=False,
              greedy={"best_of": 1})
print(" ".join(part.text for part in model.transcribe(sys.argv[2])))
"""

# The most that was resident of a process (VmHWM) reaches its parent when it ends, as the larger of that and of what
# the parent held when it forked: so the parent is a small one.
LAUNCHER = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
print(json.dumps([done.returncode, done.stdout, done.stderr, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def peak(command: list[str]) -> tuple[str, float]:
    """What a program printed, and the most that was resident of it, in MB."""
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    code, out, err, kilobytes = json.loads(subprocess.run(launched, stdout=subprocess.PIPE, check=True).stdout)
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}:\n{err}")
    return str(out), kilobytes * 1024 / 1e6


def clip(file: Path) -> str:
    """Write bundled clips, joined and followed by silence, as a WAV of SECONDS; what is said in it."""
    known = {found.name: found for found in clips.bundled("full")}
    speech = np.concatenate([read_audio(known[name].path) for name in SPOKEN])
    silence = round(SECONDS * SAMPLE_RATE) - len(speech)
    soundfile.write(file, np.pad(speech, (0, silence)), SAMPLE_RATE, subtype="PCM_16")
    return " ".join(known[name].text for name in SPOKEN)


def heard(printed: str) -> str:
    """The transcript without a file's name or whisper-cli's times."""
    return " ".join(re.sub(r"^(\[.*?\]|.*?\.wav:)", "", line).strip() for line in printed.splitlines()).strip()


def compare(work: Path) -> None:
    """Build, measure, and print the transcripts and the table."""
    files = whisper_cpp.ggml("tiny.en", work, QUANTISED)
    program = whisper_cpp.fetch_and_build(work)[1] / "bin" / "whisper-cli"
    wav = work / "clip.wav"
    said = clip(wav)
    _, engine = build(work, "profile=duplex_lowmem", "model=tiny.en", "precision=int8")
    ours = "whisper_factory, int8, duplex_lowmem"
    commands = {ours: [sys.executable, "-m", "whisper_factory.run", "--engine_dir", str(engine), "--input_file",
                       str(wav), "--threads", str(THREADS), "--report_memory"]}
    for precision, file in files.items():
        for label, options in MODES.items():
            commands[f"whisper.cpp, {precision}, {label}"] = [str(program), "--model", str(file),
                "--file", str(wav), "--threads", str(THREADS), "--no-prints", *options]
        if find_spec("pywhispercpp"):
            commands[f"whisper.cpp, {precision}, greedy, through its Python binding"] = [
                sys.executable, "-c", BINDING, str(file), str(wav), str(THREADS)]
    found: dict[str, list[float]] = {label: [] for label in commands}
    texts: dict[str, str] = {}
    for _ in range(RUNS):
        for label, command in commands.items():
            printed, megabytes = peak(command)
            found[label].append(megabytes)
            texts[label] = heard(printed)
    print(f"said: {said}")
    for label, text in texts.items():
        print(f"{label}: {text}")
    base = statistics.median(found[ours])
    print("\n| program | peak MB | least to most | to ours | word errors |\n|---|---|---|---|---|")
    for label, all_mb in found.items():
        middle, errors = statistics.median(all_mb), dataset.score([(said, texts[label])]).word_errors
        print(f"| {label} | {middle:.1f} | {min(all_mb):.1f} to {max(all_mb):.1f} | {middle / base:.2f} | {errors} |")
    versions = {**backends.get("onnxruntime").tools(), "whisper.cpp": f"{whisper_cpp.VERSION} ({whisper_cpp.BINDING})"}
    print(f"\nMedian of {RUNS}. {machine(versions, THREADS)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, help="scratch folder, 0.6 GB (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        compare(work)


if __name__ == "__main__":
    main()
