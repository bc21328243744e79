"""What gpu.py needs on a machine that may have no network: `python gpu_payload.py PAYLOAD [--human MANIFEST]`.

Weights of tiny.en and base as the step `fetch` leaves them, the recordings of speech.py as FLAC, and openai-whisper's
package if it is installed here (it is Python alone). Needs flite and espeak-ng.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import soundfile
import speech

from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE

MODELS = ("tiny.en", "base")
PACKAGES = ("whisper", "more_itertools")  # the second is needed by the first


def sources(payload: Path) -> None:
    """sources/MODEL, of a store of its own."""
    store = payload / "store"
    for model in MODELS:
        command = [sys.executable, "-m", "whisper_factory", f"model={model}", "stop_after=fetch", "quiet=true",
                   f"store.path={store / model}", f"outputs={store / 'out'}"]
        subprocess.run(command, check=True)
        (fetched,) = (store / model / "fetch").iterdir()
        shutil.copytree(fetched, payload / "sources" / model, dirs_exist_ok=True)
    shutil.rmtree(store)


def clips(payload: Path, human: Path | None) -> None:
    """clips/: every recording of speech.py, and of a manifest."""
    rows, folder = [], payload / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(speech.collect(payload / "spoken", human)):
        name = f"{number:03d}.flac"
        soundfile.write(folder / name, read_audio(one.path).clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        rows.append({"file": name, "text": one.text, "condition": one.condition, "sentence": one.sentence})
    (folder / "clips.json").write_text(json.dumps(rows), encoding="utf-8")
    shutil.rmtree(payload / "spoken")


def main() -> None:
    """Write the payload."""
    flags = argparse.ArgumentParser(description="Prepare what gpu.py needs.")
    flags.add_argument("payload", type=Path)
    flags.add_argument("--human", type=Path, help="a manifest of recordings of people, by human_clips.py")
    wanted = flags.parse_args()
    sources(wanted.payload)
    clips(wanted.payload, wanted.human)
    for package in PACKAGES:
        if (found := importlib.util.find_spec(package)) and found.origin:
            shutil.copytree(Path(found.origin).parent, wanted.payload / package, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
