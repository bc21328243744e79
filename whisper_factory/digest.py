"""SHA-256 of files and of plain data: the only identity anything has here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHUNK = 1 << 20


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    import hashlib  # here: what it is built on takes 3 MB, which running an engine need not have

    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def of_data(data: Any) -> str:
    """SHA-256 of plain data (dicts, lists, strings, numbers, None), independent of the order of keys."""
    import hashlib

    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def of_tree(directory: Path, known: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below a directory, by POSIX path relative to it, sorted.

    Args:
        known: SHA-256 of files that have just been hashed, by that path.
    """
    from whisper_factory.threads import ahead

    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    names, known = sorted(files, key=files.__getitem__), known or {}
    digests = ahead(lambda name: known.get(name) or of_file(files[name]), names)
    return {name: {"bytes": files[name].stat().st_size, "sha256": sha256}
            for name, sha256 in zip(names, digests, strict=True)}
