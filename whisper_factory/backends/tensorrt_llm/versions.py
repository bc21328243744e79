"""TensorRT-LLM's versions: which are known, the generation of their checkpoints, and the options of their trtllm-build.

The generations (names of tensors, keys of config.json) were read from upstream's sources: G1 is 0.11 to 0.14, G2 0.15
to 0.17, G3 1.x. build_flags.json has the option names that trtllm-build's argument parser defines, by version.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from whisper_factory.errors import UserError

DEFAULT = "0.12.0"  # the last with a Jetson build
KNOWN = "0.11 to 0.17 and 1.x"

Generation = Literal["G1", "G2", "G3"]

_VERSION = re.compile(r"v?(\d+)\.(\d+)(\.\d+)?((?:\.?(?:a|b|rc|dev|post)\d+)*)(?:\+[\w.-]+)?", re.ASCII)
_RECORDED = Path(__file__).with_name("build_flags.json")


@dataclass(frozen=True)
class Release:
    """A version of TensorRT-LLM whose checkpoints and options are known."""

    text: str  # "0.12.0", "1.3.0rc3"; never with a local part ("+jetson")
    major: int
    minor: int

    @property
    def generation(self) -> Generation:
        """Of the checkpoint's tensor names and config keys."""
        if self.major:
            return "G3"
        return "G2" if self.minor >= 15 else "G1"

    def at_least(self, major: int, minor: int) -> bool:
        """Whether this is that minor version or a later one (a pre-release counts as its release)."""
        return (self.major, self.minor) >= (major, minor)


def parse(text: str) -> Release:
    """A version as a person or a package writes it: "0.12", "0.12.0.dev2024080600", "0.12.0+jetson", "1.3.0rc3".

    Raises:
        UserError: it is no version, or one for which no checkpoint generation is known.
    """
    found = _VERSION.fullmatch(text.strip())
    if not found:
        raise UserError(f"trtllm_version '{text}' is not a version of TensorRT-LLM; known are {KNOWN}, "
                        f"written as {DEFAULT} or 1.3.0rc3")
    major, minor = int(found[1]), int(found[2])
    if not (major == 0 and 11 <= minor <= 17) and major != 1:
        as_number = "" if found[3] or found[4] or not 1 <= minor <= 9 else (
            f"; on a command line a bare 0.{minor}0 is read as the number {text}: write 0.{minor}0.0")
        raise UserError(f"TensorRT-LLM {text} is not supported, since no checkpoint generation is known for it; "
                        f"known are {KNOWN}{as_number}")
    return Release(_plain(text), major, minor)


def options(release: Release) -> tuple[frozenset[str], str]:
    """The options that this version's trtllm-build takes ("--checkpoint_dir", ...), and the version they are of.

    That is the recorded version of the same minor; for 1.x, the one of 1.x that was recorded.
    """
    recorded = _recorded()
    of = next((text for text in recorded if text.startswith(f"{release.major}.{release.minor}.")), None)
    of = of or next(text for text in recorded if text.startswith(f"{release.major}."))
    return recorded[of], of


def installed() -> str | None:
    """The version of the installed tensorrt_llm, without importing it (and without a local part); None: not there."""
    try:
        return metadata.version("tensorrt_llm").split("+")[0]
    except metadata.PackageNotFoundError:
        return None


def same(a: str, b: str) -> bool:
    """Whether two texts mean one version: "0.12" is "0.12.0", and a local part ("+jetson") does not count."""
    return _plain(a) == _plain(b)


def _plain(text: str) -> str:
    found = _VERSION.fullmatch(text.strip())
    return f"{found[1]}.{found[2]}{found[3] or '.0'}{found[4]}" if found else text.strip()


@cache
def _recorded() -> dict[str, frozenset[str]]:
    recorded: dict[str, list[str]] = json.loads(_RECORDED.read_text(encoding="utf-8"))
    return {text: frozenset(names) for text, names in recorded.items()}
