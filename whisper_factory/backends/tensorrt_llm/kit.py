"""The build kit: what a device needs beside the packed checkpoint to build an engine from it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from whisper_factory.backends.tensorrt_llm.commands import MEMORY_WORDS, build_commands, spelt
from whisper_factory.backends.tensorrt_llm.limits import release_of, target_of
from whisper_factory.engine_spec import EngineSpec

RUNTIME = "runtime"
# What running an engine imports beside TensorRT-LLM, which brings torch.
RUN_PACKAGES = ("numpy>=1.26", "soundfile>=0.12.1", "soxr>=0.5", "tiktoken>=0.8")


def write_kit(spec: EngineSpec, out: Path) -> None:
    """Write build.sh, requirements.txt and runtime/engine.json into `out`."""
    script = out / "build.sh"
    script.write_text(build_script(spec), encoding="utf-8")
    script.chmod(0o755)
    (out / "requirements.txt").write_text(_requirements(spec), encoding="utf-8")
    (out / RUNTIME).mkdir()
    spec.save(out / RUNTIME)


def _requirements(spec: EngineSpec) -> str:
    release, target = release_of(spec), target_of(spec)
    where = f"# For {target.device}, compute capability {target.compute_capability}."
    if target.device.startswith("jetson"):
        where += " NVIDIA's index has no TensorRT-LLM for Jetson:\n# take the wheel of branch v0.12.0-jetson."
    lines = [where, f"tensorrt_llm=={release.text}", "# To run the engine, besides whisper_factory itself:",
             *RUN_PACKAGES]
    return "\n".join(lines) + "\n"


def build_script(spec: EngineSpec) -> str:
    """build.sh: checks the device, runs the two commands as they are written there, and makes engine/ runnable."""
    target, release = target_of(spec), release_of(spec)
    commands = build_commands(spec, "checkpoint", "engine")
    stages = "\n\n".join(f"begin {stage}\n{spelt(options)}\nfinish" for stage, options in commands.items())
    filled = {"MODEL": f"{spec.model} {spec.precision.name}", "DEVICE": " ".join(target.device.split()),
              "VERSION": release.text, "CAPABILITY": target.compute_capability, "STAGES": stages,
              "MEMORY": " \\\n        ".join(f"-e {shlex.quote(word)}" for word in MEMORY_WORDS)}
    return re.sub(r"@(\w+)@", lambda found: filled[found[1]], _SCRIPT)


_SCRIPT = r"""#!/usr/bin/env bash
# Builds the TensorRT-LLM engine of @MODEL@ for @DEVICE@ from this kit, into engine/.
# Needs tensorrt_llm @VERSION@ and a GPU of compute capability @CAPABILITY@; PYTHON names the interpreter that has them.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
python="${PYTHON:-python3}"

refuse() { printf 'error: %s\n' "$1" >&2; exit 2; }
ask() { "$python" -c "$1" 2>/dev/null || echo none; }

[ ! -e engine/engine.json ] || refuse "engine/ is there already; move it away to build it again"
command -v "$python" >/dev/null || refuse "no '$python' here; PYTHON=... names the interpreter that has tensorrt_llm"
version="$(ask 'from importlib import metadata; print(metadata.version("tensorrt_llm").partition("+")[0])')"
[ "$version" != none ] || refuse "this kit is for TensorRT-LLM @VERSION@, $python has none; install it, or set PYTHON"
[ "$version" = @VERSION@ ] || refuse "this kit is for TensorRT-LLM @VERSION@, installed is $version; \
install @VERSION@, or make the kit again with trtllm_version=$version"
capability="$(ask 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')"
if [ "$capability" = none ]; then
    capability="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 || true)"
fi
[[ "$capability" =~ ^[0-9]+\.[0-9]+$ ]] || { capability=@CAPABILITY@; echo "warning: neither torch nor nvidia-smi sees \
a GPU here: that it is of compute capability @CAPABILITY@ is not checked" >&2; }
[ "$capability" = @CAPABILITY@ ] || refuse "this kit is for compute capability @CAPABILITY@, this GPU has $capability; \
make the kit again with the device=... of this GPU (or device.compute_capability=$capability)"
command -v trtllm-build >/dev/null || refuse "trtllm-build is not on PATH; activate the environment of tensorrt_llm"

log=engine/build.log
mkdir -p engine
exec 3>&1 4>&2
exec > >(tee "$log") 2>&1
tee=$!
quiet() { exec 1>&3 2>&4; wait "$tee" || true; }  # till all is in the log

begin() { stage=$1; started=$SECONDS; rm -rf "engine/$1"; echo "building the $1"; }
finish() {
    [ -s "engine/$stage/rank0.engine" ] || { echo "trtllm-build ended well but wrote no rank0.engine"; return 1; }
    echo "built the $stage in $((SECONDS - started)) s"
}

failed() {
    trap - ERR
    quiet
    local what="failed (its last line: $(tail -n 1 "$log")),"
    if [ "$1" = 137 ] || grep -qiF @MEMORY@ "$log"; then
        what="ran out of memory ($(awk '/^MemAvailable:/ {print int($2 / 1000)}' /proc/meminfo) MB of the system's \
memory are free now, $(ask 'import torch; print(torch.cuda.mem_get_info()[0] // 10**6)') MB of the GPU's); stop what \
else uses memory, add swap, or make a kit with a smaller batch, beam or model;"
    fi
    printf 'error: %s: %s exit code %s; log: %s\n' "$stage" "$what" "$1" "$PWD/$log" >&2
    exit 4
}
trap 'failed $?' ERR

@STAGES@

stage=copying
cp -f checkpoint/stamp.json checkpoint/vocabulary.tiktoken engine/
cp -f runtime/engine.json engine/engine.json  # last: it makes the directory an engine
trap - ERR
quiet
echo "engine: $PWD/engine"
printf 'run it: %q -m whisper_factory.run --engine_dir %q --input_file FILE.wav\n' "$python" "$PWD"
"""
