"""What gpu.py needs on a machine that may have no network: `python gpu_payload.py PAYLOAD [--human MANIFEST]`.

Weights of tiny.en and base as the step `fetch` leaves them, the recordings of speech.py as FLAC, and openai-whisper's
package if it is installed here (it is Python alone). Needs flite and espeak-ng. site/ is what the package needs of
others, for the GPU machine's Python (--python 3.12, on x86-64), all but NumPy, ONNX and ONNX Runtime: gpu.py puts it
behind what is installed there. `--only site` makes one part alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import soundfile
import speech

from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE

MODELS = ("tiny.en", "base")
PACKAGES = ("whisper", "more_itertools")  # the second is needed by the first
PARTS = ("sources", "clips", "peers", "site")
# Of the package's own dependencies and theirs; antlr4's runtime comes as source alone, of which a wheel is made here.
SITE = ("hydra-core", "omegaconf", "packaging", "filelock", "pyyaml", "rich", "markdown-it-py", "mdurl", "pygments",
        "soundfile", "cffi", "pycparser", "soxr", "typing-extensions")
SOURCE = "antlr4-python3-runtime"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


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


def peers(payload: Path) -> None:
    """openai-whisper, if it is here."""
    for package in PACKAGES:
        if (found := importlib.util.find_spec(package)) and found.origin:
            shutil.copytree(Path(found.origin).parent, payload / package, dirs_exist_ok=True)


def site(payload: Path, python: str) -> None:
    """site/: packages for a Python of another machine, in the versions that are installed here."""
    target = payload / "site"
    shutil.rmtree(target, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as built:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", built, wanted(SOURCE)], check=True)
        (wheel,) = Path(built).iterdir()
        platforms = [f"--platform={name}" for name in PLATFORMS]
        subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--target", str(target), "--only-binary=:all:",
                        f"--python-version={python}", "--implementation=cp", *platforms, str(wheel),
                        *map(wanted, SITE)], check=True)


def wanted(package: str) -> str:
    """As pip is asked for it."""
    return f"{package}=={metadata.version(package)}"


def main() -> None:
    """Write the payload."""
    flags = argparse.ArgumentParser(description="Prepare what gpu.py needs.")
    flags.add_argument("payload", type=Path)
    flags.add_argument("--human", type=Path, help="a manifest of recordings of people, by human_clips.py")
    flags.add_argument("--python", default="3.12", help="of the machine with the GPU")
    flags.add_argument("--only", choices=PARTS, action="append", help="one part of it")
    asked = flags.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "sources": lambda: sources(asked.payload), "clips": lambda: clips(asked.payload, asked.human),
        "peers": lambda: peers(asked.payload), "site": lambda: site(asked.payload, asked.python),
    }
    for part in asked.only or PARTS:
        parts[part]()


if __name__ == "__main__":
    main()
