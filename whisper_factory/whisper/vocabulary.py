"""The vocabulary as a rank file: what tiktoken reads, OpenAI ships, and a checkpoint carries.

A rank file has one token a line, `base64(bytes) rank`, in the order of ranks; a token's rank is its id and the
priority of the merge that makes it. A Hugging Face tokenizer.json of byte-level BPE says the same in another
spelling: each byte is written as one printable character, and special tokens stand among the others.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from whisper_factory.errors import UserError

KEPT = 2048  # tokens that were asked for last, in 0.2 MB: looking one up takes 1.4 us, and speech has few
EMPTY = b"="  # how OpenAI's multilingual file writes its one token of no bytes


def ranks_from_tokenizer_json(path: Path) -> dict[bytes, int]:
    """Tokens and ranks of a Hugging Face tokenizer.json, without its special tokens, in the order of ranks.

    Raises:
        UserError: no such file, or not a byte-level BPE tokenizer whose ids follow its merges.
    """
    try:
        data = json.loads(_read(path).decode("utf-8"))
        model, added = data["model"], {token["content"] for token in data.get("added_tokens", [])}
        vocabulary, merges = model["vocab"], model["merges"]
        if model.get("type", "BPE") != "BPE":
            raise ValueError(f"its model is {model['type']}, not BPE")
        spelled = sorted((rank, token) for token, rank in vocabulary.items() if token not in added)
        _follow_merges(vocabulary, merges)
        return _checked({_spell_out(token): rank for rank, token in spelled})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' is not a byte-level BPE tokenizer.json ({_reason(error)}); "
                        "give the one that came with the model") from error


class RankFile:
    """The tokens of a rank file, left as they lie in it, which is mapped.

    A transcript asks for some tens of them: 1 MB, where tables of 50,000 objects take 25.
    """

    token: Callable[[int], bytes]  # the bytes of a token

    def __init__(self, path: Path) -> None:
        """Read and check a rank file.

        Raises:
            UserError: no such file, or a line that is not `base64 rank`, or ranks with gaps.
        """
        from whisper_factory.whisper.rank_lines import lines_of  # numpy: a mistake is told before it is imported

        self._data, self.token = _map(path), lru_cache(KEPT)(self._token)
        try:
            self._lines = lines = lines_of(self._data)
            singles = int((lines.is_one_byte(self._data)).sum())
            if singles < 256:
                raise ValueError(f"{256 - singles} single bytes are no token")
        except ValueError as error:
            raise UserError(f"'{path}' is not a whole rank file ({error}); get it again") from error

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self._lines.starts)

    def _token(self, rank: int) -> bytes:
        start = int(self._lines.starts[rank])
        spelled = self._data[start : start + int(self._lines.lengths[rank])]
        return b"" if spelled == EMPTY else base64.b64decode(spelled)

    def let_go(self) -> None:
        """Leave what has been read of the file to the system; what is asked for is read again."""
        if isinstance(self._data, mmap.mmap):
            self._data.madvise(mmap.MADV_DONTNEED)

    def rank(self, token: bytes) -> int | None:
        """The rank of a token, or None. Looks at all tokens of its length, which takes 0.05 ms."""
        spelled = base64.b64encode(token) or EMPTY
        for place in self._lines.like(spelled):
            start = int(self._lines.starts[place])
            if self._data[start : start + len(spelled)] == spelled:
                return int(place)
        return None

    def merge(self, piece: bytes) -> list[int]:
        """The tokens of a few bytes that stand together: byte-pair encoding without the splitting of a text before it.

        Again and again, of all neighbours that together are a token, those that make the lowest rank become one.
        """
        parts, rank_of = [bytes([byte]) for byte in piece], cache(self.rank)
        while True:
            ranked = [(rank, place) for place, pair in enumerate(pairwise(parts))
                      if (rank := rank_of(b"".join(pair))) is not None]
            if not ranked:
                return [rank for part in parts if (rank := rank_of(part)) is not None]
            _, place = min(ranked)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]


def rank_file(ranks: Mapping[bytes, int]) -> bytes:
    """The bytes of a rank file: equal vocabularies give equal files."""
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token) or EMPTY, rank) for token, rank in ordered)


def write_rank_file(path: Path, ranks: Mapping[bytes, int]) -> None:
    """Write a vocabulary as a rank file."""
    path.write_bytes(rank_file(ranks))


def byte_characters() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the others as characters from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = byte_characters()


def _spell_out(token: str) -> bytes:
    return bytes(_BYTES[character] for character in token)


def _follow_merges(vocabulary: Mapping[str, int], merges: list[Any]) -> None:
    """A rank file has no merges, it merges in the order of ids; so the merges must make ascending ids.

    Not every id needs its merge: the multilingual files at Hugging Face lack the first one (it makes " t").
    """
    last = -1
    for merge in merges:
        made = "".join(merge.split(" ") if isinstance(merge, str) else merge)
        if vocabulary[made] <= last:
            raise ValueError(f"the merge that makes '{made}' is out of the order of ids")
        last = vocabulary[made]


def _checked(ranks: dict[bytes, int]) -> dict[bytes, int]:
    """The same ranks, if they can drive an encoder: no gaps, and every single byte is a token."""
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError("ranks are not 0, 1, 2, ... once each")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(f"{len(missing)} single bytes are no token")
    return ranks


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the vocabulary '{path}' ({error.strerror}); is the path right?") from error


def _map(path: Path) -> bytes | mmap.mmap:
    try:
        with path.open("rb") as file:  # nothing cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.seek(0, os.SEEK_END) else b""
    except OSError as error:
        raise UserError(f"cannot read the vocabulary '{path}' ({error.strerror}); is the path right?") from error


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
