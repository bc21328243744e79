"""What goes wrong with real speech and real weights: each is told in one line, or heard all the same."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.real_engine import CONTIGUOUS, PAGED, clip, tiny_en
from whisper_factory import clips, run
from whisper_factory.engine_spec import KVCache, PaddingStrategy
from whisper_factory.errors import UserError
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.transcribe import Transcriber

NAMES = ("sample", "river", "soup", "lamp", "ferry", "snow")


@cache
def audio(name: str) -> NDArray[np.float32]:
    return read_audio(clip(name))


@lru_cache(2)  # engines of eight windows are large
def transcriber(max_input_len: int = 750, precision: str = "float32", kv_cache: KVCache = PAGED,
                **changes: int) -> Transcriber:
    return Transcriber.load(tiny_en(max_input_len, precision, kv_cache, margin_frames=100, **changes), threads=2)


def tokens(loaded: Transcriber, names: tuple[str, ...] = NAMES, beams: int = 1) -> list[list[int]]:
    return [found.tokens for found in loaded.transcribe([audio(name) for name in names], Options(num_beams=beams))]


@pytest.mark.parametrize(("beams", "every"), [(1, 4), (2, 8)])
def test_both_modes_hear_the_same(beams: int, every: int) -> None:
    """Windows of 10 s, the longer clips in several, eight at once: every fourth clip; with beams, which take several
    times as long, every eighth."""
    names = tuple(found.name for found in clips.bundled("full"))[::every]
    contiguous, paged = (tokens(transcriber(1000, "int8", mode), names, beams) for mode in (CONTIGUOUS, PAGED))
    assert contiguous == paged
    assert len(contiguous) == 64 // every


@pytest.mark.parametrize(("beams", "pool"), [(1, 12), (3, 36)])
def test_windows_wait_for_pages_and_hear_what_they_hear_alone(beams: int, pool: int) -> None:
    """With pages of five tokens, of which these windows would take fifteen a beam at once."""
    short = transcriber(kv_cache=KVCache("paged", 5, pool), max_batch_size=6, max_beam_width=beams)
    memory = short.engine.memory  # type: ignore[attr-defined]
    found = tokens(short, beams=beams)
    assert (memory.pages_in_use, memory.most_pages) == (0, pool)
    assert found == [tokens(transcriber(), (name,), beams)[0] for name in NAMES]


def test_a_pool_that_is_exhausted(capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit code 2; the engine lives on, and hears what fits."""
    cache = KVCache("paged", 5, 40)
    beams = 5
    short = transcriber(kv_cache=cache)
    with pytest.raises(UserError, match=r"the KV cache is full: \d+ of 40 pages \(kv_cache.max_pages\) are in use"):
        tokens(short, beams=beams)
    memory = short.engine.memory  # type: ignore[attr-defined]
    assert memory.pages_in_use == 0
    assert tokens(short, ("river",), beams) == tokens(transcriber(), ("river",), beams)
    files = [str(clip(name)) for name in NAMES]
    engine = str(tiny_en(750, "float32", cache, margin_frames=100))
    asked = ["--engine_dir", engine, "--num_beams", str(beams), "--input_file", *files]
    assert run.main(asked) == 2
    said = capsys.readouterr()
    line, = said.err.splitlines()
    assert said.out == ""
    assert line.startswith("error: the KV cache is full")
    assert run.main([*asked, "--batch_size", "1"]) == 0


@pytest.mark.parametrize("strategy", ["max", "nopad", "trim"])
def test_a_clip_that_is_longer_than_the_engine(strategy: PaddingStrategy) -> None:
    """Cut in pauses and heard to the end, or cut off where that was asked for, and said so."""
    long = np.concatenate([audio("sample"), audio("river"), audio("soup")])
    found, = transcriber().transcribe([long], Options(padding_strategy=strategy))
    assert found.text.startswith("Good morning, the train to the coast")
    assert found.text.endswith("fresh parsley.") == (strategy != "trim")
    assert len(found.windows) == (1 if strategy == "trim" else 3)
    assert bool(found.warnings) == (strategy == "trim")


@pytest.mark.parametrize("beams", [1, 3])
def test_max_new_tokens_is_reached(beams: int) -> None:
    found, = transcriber().transcribe([audio("sample")], Options(num_beams=beams, max_new_tokens=5))
    whole, = tokens(transcriber(), ("sample",), beams)
    assert len(found.tokens) == 5
    assert found.tokens == whole[:5] or beams > 1
    assert found.windows[0].decoded.stopped == "length"
    assert "stopped at 5 tokens" in found.warnings[0]


def test_a_batch_with_an_empty_clip_and_a_long_one() -> None:
    """Eight clips: no samples at all, 15 s of speech, and six others, which are heard as alone."""
    loaded = transcriber(1500, "int8")
    long = np.resize(np.concatenate([audio(name) for name in NAMES]), 15 * 16000)
    found = loaded.transcribe([*(audio(name) for name in NAMES[:3]), np.zeros(0, np.float32), long,
                               *(audio(name) for name in NAMES[3:])])
    assert [result.seconds for result in (found[3], found[4])] == [0.0, 15.0]
    assert len(found[4].tokens) > 30
    assert len(found[3].tokens) < 20
    assert [result.tokens for place, result in enumerate(found) if place not in (3, 4)] == \
           [loaded.transcribe([audio(name)])[0].tokens for name in NAMES]


def test_a_beam_that_is_wider_than_the_engines() -> None:
    with pytest.raises(UserError, match=r"num_beams=6: this engine takes 1 to 5.*profile.max_beam_width=6"):
        tokens(transcriber(), ("river",), beams=6)
