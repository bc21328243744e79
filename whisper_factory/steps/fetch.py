"""fetch: weights and vocabulary, checked against their SHA-256, joined where they come in parts.

Output: weights/<file> as the reader wants them, and vocabulary.tiktoken (OpenAI's rank file).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from whisper_factory.digest import CHUNK
from whisper_factory.errors import UserError
from whisper_factory.steps.context import Context

if TYPE_CHECKING:
    from whisper_factory.plan import PlannedStep

VERSION = 1
VOCABULARY = "vocabulary.tiktoken"


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Fill `out`.

    Raises:
        UserError: a file whose SHA-256 is not the pinned one.
        EnvironmentFault: a download that cannot be made.
    """
    (out / "weights").mkdir()
    for name, digests in step.params["files"].items():
        with (out / "weights" / name).open("wb") as joined:
            for sha256, origin in zip(digests, step.hints["origins"][name], strict=True):
                _append(joined, sha256, origin, context)
    name, sha256 = step.params["vocabulary"]
    (out / VOCABULARY).write_bytes(_vocabulary(name, sha256, step.hints, context))


def _append(joined: BinaryIO, sha256: str, origin: str, context: Context) -> None:
    path = _download(origin, sha256, context) if "://" in origin else Path(origin)
    digest = hashlib.sha256()
    with path.open("rb") as part:
        while chunk := part.read(CHUNK):
            digest.update(chunk)
            joined.write(chunk)
    if digest.hexdigest() != sha256:
        raise UserError(f"{origin}: SHA-256 is {digest.hexdigest()}, expected {sha256}; "
                        "get the file again, or pass the right one with weights.path")
    if "://" in origin:
        path.unlink()  # the joined copy is what the store keeps


def _download(url: str, sha256: str, context: Context) -> Path:
    from whisper_factory.download import download

    name = url.rsplit("/", 1)[-1]
    mine = _openai_cache() / name
    if mine.is_file() and _has_digest(mine, sha256):
        context.say(f"fetch: {name} is in openai-whisper's cache, copying it")
        path = context.partial / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(mine.absolute())
        return path
    path = context.partial / sha256
    download(url, path, sha256, partial_dir=context.partial, say=context.say,
             hint="overrides that avoid it: weights=path weights.path=FILE.pt, weights=huggingface weights.path=DIR, "
                  "or an installed weights package (model=tiny.en, model=base)")
    return path


def _openai_cache() -> Path:
    """Where openai-whisper keeps its downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "whisper"


def _has_digest(path: Path, sha256: str) -> bool:
    from whisper_factory import digest

    return digest.of_file(path) == sha256


def _vocabulary(name: str, sha256: str, hints: dict[str, Any], context: Context) -> bytes:
    """The rank file's bytes: from an installed package if one has it, else downloaded."""
    from whisper_factory.whisper import vocabulary

    for candidate in map(Path, hints["tokenizers"]):
        content = (candidate.read_bytes() if candidate.suffix == ".tiktoken"
                   else vocabulary.rank_file(vocabulary.ranks_from_tokenizer_json(candidate)))
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
        context.say(f"fetch: {candidate} does not hold OpenAI's {name} vocabulary, passing it over")
    path = _download(hints["vocabulary_url"], sha256, context)
    content = path.read_bytes()
    path.unlink()
    return content
