"""An 8-bit engine on a processor without VNNI, emulated: the same clips, the same tokens?

    apt-get install qemu-user        # 7.2 or later
    python benchmarks/old_processors.py --work outputs/old_processors

x86-64 processors with AVX2 but no VNNI add two products of bytes in 16 bits, where they can overflow. There ONNX
Runtime is asked to take twice the time instead (runtime.py). The engine hears clips natively, under
`qemu-x86_64 -cpu Haswell` as it is, and there without having asked. Printed, as a Markdown table: how many tokens are
the same as natively, and how far keys made from the encoder's states are from the native ones, in parts of their
length. An emulated clip takes about ten seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from memory import build

CPU = "Haswell"
FRAMES, STEP = 850, 37  # a window's; every so many numbers of its states
QEMU = ("qemu-x86_64", "-cpu", CPU)


def hear(engine: Path, names: list[str], vnni: bool) -> dict[str, Any]:
    """Of each bundled clip its tokens, and some of the encoder's states for it: cross-attention's first keys.

    Args:
        vnni: what the engine is to think of its processor; the emulator leaves the host's /proc/cpuinfo as it is.
    """
    from whisper_factory import clips
    from whisper_factory.backends.onnx_graph import runtime
    from whisper_factory.whisper.audio import read_audio
    from whisper_factory.whisper.logmel import log_mel
    from whisper_factory.whisper.transcribe import Transcriber

    runtime.adds_bytes_exactly = lambda: vnni
    transcriber = Transcriber.load(engine, 1)
    found = {}
    for clip in clips.bundled("full"):
        if clip.path.stem in names:
            audio = read_audio(clip.path)
            tokens = transcriber.transcribe([audio])[0].tokens
            utterance = transcriber.engine.encode(log_mel(audio, transcriber.spec.dimensions.n_mels, FRAMES)[None])
            found[clip.path.stem] = {"tokens": tokens, "keys": utterance._block.cross[-2].ravel()[::STEP].tolist()}
    return found


def agreement(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Tokens of `one` that `other` has at the same places, and how far its states are off."""
    pairs = [(one[name], other[name]) for name in one]
    same = sum(x == y for a, b in pairs for x, y in zip(a["tokens"], b["tokens"], strict=False))
    keys = [np.array([entry["keys"] for entry in side.values()]) for side in (one, other)]
    apart = np.linalg.norm(keys[0] - keys[1]) / np.linalg.norm(keys[0])
    return f"{same} of {sum(len(a['tokens']) for a, _ in pairs)} | {apart:.4f}"


def main() -> None:
    """Hear, or have others hear and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--clips", nargs="+", default=["airport", "bridge", "coffee", "forest"])
    parser.add_argument("--hear", nargs=2, metavar=("ENGINE", "VNNI"), help="used by this script itself")
    options = parser.parse_args()
    if options.hear:
        print(json.dumps(hear(Path(options.hear[0]), options.clips, options.hear[1] == "yes")))
        return
    engine = build(options.work.resolve(), "profile=duplex_lowmem", f"model={options.model}", "precision=int8")[1]

    def ask(*before: str, vnni: str) -> dict[str, Any]:
        command = [*before, sys.executable, __file__, "--work", str(options.work), "--clips", *options.clips,
                   "--hear", str(engine), vnni]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return found

    native = ask(vnni="yes")
    print("| processor | products | the same tokens | states apart |\n|---|---|---|---|")
    print(f"| this one | as they are | {agreement(native, native)} |", flush=True)
    print(f"| {CPU}, emulated | asked to be exact | {agreement(native, ask(*QEMU, vnni='no'))} |", flush=True)
    print(f"| {CPU}, emulated | not asked | {agreement(native, ask(*QEMU, vnni='yes'))} |")
    print(f"\n{options.model}, int8; {platform.machine()}.")


if __name__ == "__main__":
    main()
