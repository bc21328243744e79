"""whisper.cpp from the package index, built here, and its files made from the weights that we read.

It comes inside the sdist of its Python binding and is built with one job, for this machine, without BLAS, its libraries
linked in. Needs a C++ compiler and the `dev` extra (its converter uses torch and openai-whisper's vocabulary). All lies
in a folder that the caller keeps: what is there already is not made again.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.real_weights import BASE, TINY_EN, packaged
from whisper_factory.backends.onnx_graph.runtime import processor_flags
from whisper_factory.whisper import readers

BINDING, VERSION = "pywhispercpp==1.5.1", "1.8.5"  # of the whisper.cpp in its sdist
TOOLS = ("cmake==4.4.4", "ninja==1.13.2")
OPTIONS = ("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "GGML_NATIVE=ON", "GGML_BLAS=OFF",
           "WHISPER_BUILD_TESTS=OFF", "WHISPER_BUILD_SERVER=OFF")
# Its kernels for AMX end with an illegal instruction where the system has not been asked for AMX (seen with q8_0).
WITHOUT_AMX = "CMAKE_CXX_FLAGS=-mno-amx-int8 -mno-amx-tile"


def quietly(*command: str | Path) -> None:
    """Run a program at the lowest priority; what it printed is shown only if it fails."""
    done = subprocess.run(["nice", "-n", "19", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")


def environment(folder: Path, packages: Iterable[str]) -> Path:
    """A virtual environment with some packages, made once; its programs' folder."""
    programs, wanted = folder / "bin", "\n".join(packages)
    stamp = folder / "packages.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True)
        quietly(programs / "pip", "install", *packages)
        stamp.write_text(wanted, encoding="utf-8")
    return programs


def fetch_and_build(work: Path) -> tuple[Path, Path]:
    """whisper-cli and whisper-quantize; the source, and the folder of what was built."""
    tools, sdist, name = environment(work / "tools", TOOLS), work / "sdist", BINDING.replace("==", "-")
    if not sdist.exists():
        quietly(tools / "pip", "download", "--no-binary", "pywhispercpp", "--no-deps", "--dest", work, BINDING)
        with tarfile.open(work / f"{name}.tar.gz") as archive:
            archive.extractall(unpacked := sdist.with_suffix(".part"), filter="data")
        unpacked.rename(sdist)  # whole, or not there
    source, made = sdist / name / "whisper.cpp", work / "build"
    quietly(tools / "cmake", "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-S", source, "-B", made,
            *(f"-D{option}" for option in (*OPTIONS, *([WITHOUT_AMX] if "amx_int8" in processor_flags() else []))))
    quietly(tools / "cmake", "--build", made, "-j1", "--target", "whisper-cli", "whisper-quantize")
    return source, made


def compile_against(source: Path, made: Path, program: Path, out: Path) -> Path:
    """Build a C++ program that uses whisper.cpp's library."""
    if not out.exists() or out.stat().st_mtime < program.stat().st_mtime:
        libraries = [found for name in ("libwhisper.a", "libggml*.a") for found in sorted(made.rglob(name))]
        quietly("c++", "-O2", "-std=c++17", f"-I{source / 'include'}", f"-I{source / 'ggml' / 'include'}", program,
                "-Wl,--start-group", *libraries, "-Wl,--end-group", "-fopenmp", "-pthread", "-o", out)
    return out


def ctranslate2_model(model: str, work: Path) -> Path:
    """The folder of a weights package's model, which is CTranslate2's: as it is, or joined from its parts."""
    if model == "tiny.en":
        return packaged(TINY_EN).parent
    if model != "base":
        sys.exit(f"no package has the weights of {model}; choices: tiny.en, base")
    folder = work / "ctranslate2" / model
    if not (folder / "model.bin").exists():
        folder.mkdir(parents=True, exist_ok=True)
        first = packaged(BASE[0])
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            (folder / name).write_bytes(first.with_name(name).read_bytes())
        (folder / "model.part").write_bytes(first.read_bytes() + packaged(BASE[1]).read_bytes())
        (folder / "model.part").rename(folder / "model.bin")
    return folder


def openai_file(model: str, work: Path) -> Path:
    """The same weights as openai-whisper's file, in float16 as it publishes them."""
    import torch

    file = work / f"{model}.pt"
    if not file.exists():
        weights = readers.read(ctranslate2_model(model, work), "ctranslate2")
        state = {name: torch.from_numpy(np.array(tensor, np.float16)) for name, tensor in weights.tensors.items()}
        torch.save({"dims": asdict(weights.dimensions), "model_state_dict": state}, file)
    return file


def ggml(model: str, work: Path, precisions: Iterable[str]) -> dict[str, Path]:
    """The same weights as whisper.cpp's files, by precision, made by its own converter and quantiser."""
    source, made = fetch_and_build(work)
    folder = work / "ggml" / model
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "ggml-model.bin").exists():
        checkout = packaged("whisper/assets/mel_filters.npz").parents[2]  # it looks for whisper/assets in there
        quietly(sys.executable, source / "models" / "convert-pt-to-ggml.py", openai_file(model, work), checkout, folder)
    files = {precision: folder / f"ggml-{precision}.bin" for precision in precisions}
    for precision, file in files.items():
        if not file.exists():
            quietly(made / "bin" / "whisper-quantize", folder / "ggml-model.bin", file, precision)
    return files
