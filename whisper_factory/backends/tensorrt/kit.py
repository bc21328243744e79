"""The build kit, for a device whose TensorRT builds on it alone: the graphs, and a script that compiles them there."""

from __future__ import annotations

from pathlib import Path

from whisper_factory.backends.tensorrt.limits import flavour_of, target_of
from whisper_factory.engine_spec import EngineSpec

RUNTIME = "runtime"
# What building and running an engine imports beside TensorRT and CUDA's runtime library.
PACKAGES = ("numpy>=1.26", "soundfile>=0.12.1", "soxr>=0.5")


def write_kit(spec: EngineSpec, out: Path) -> None:
    """Write build.sh, requirements.txt and runtime/engine.json into `out`."""
    flavour, target = flavour_of(spec), target_of(spec)
    script = out / "build.sh"
    filled = {"@TITLE@": flavour.title, "@DEVICE@": " ".join(target.device.split()),
              "@MODEL@": f"{spec.model} {spec.precision.name}", "@CAPABILITY@": target.compute_capability}
    text = _SCRIPT
    for word, value in filled.items():
        text = text.replace(word, value)
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)
    lines = [f"# For {target.device}: {flavour.title} ({flavour.install}), whisper_factory itself, and:", *PACKAGES]
    (out / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / RUNTIME).mkdir()
    spec.save(out / RUNTIME)


_SCRIPT = r"""#!/usr/bin/env bash
# Builds the engine of @MODEL@ for @DEVICE@ (compute capability @CAPABILITY@) from this kit, into engine/.
# Needs @TITLE@ and whisper_factory; PYTHON names the interpreter that has them.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
exec "${PYTHON:-python3}" -m whisper_factory.backends.tensorrt.from_kit "$PWD"
"""
