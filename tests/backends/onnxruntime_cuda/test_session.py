"""The graphs that a GPU is given, run on the CPU: against OpenAI's own model, and a search that runs ahead."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.onnxruntime.reference import encode_short, next_logits, openai_model
from tests.backends.onnxruntime_cuda.making import built, declared, on_the_cpu
from whisper_factory.backends.onnxruntime_cuda import greedy
from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine
from whisper_factory.engine_spec import KVCache
from whisper_factory.errors import UserError
from whisper_factory.whisper.greedy import Greedy
from whisper_factory.whisper.logmel import log_mel

Lookup = Callable[[str], Path]
RNG = np.random.default_rng(5)
MEL = RNG.standard_normal((2, 80, 850), dtype=np.float32)
CLOSE = 0.03  # of logits that spread by about two, in float16
PROMPT = np.array([[50257, 50362]])


@pytest.fixture(scope="module")
def directories(checkpoints: Lookup, tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    made: dict[str, Path] = {}

    def find(precision: str) -> Path:
        if precision not in made:
            made[precision] = built(checkpoints(precision), declared(precision),
                                    tmp_path_factory.mktemp(precision) / "engine")
        return made[precision]

    return find


@pytest.fixture(scope="module")
def engine(directories: Lookup) -> CudaEngine:
    return on_the_cpu(directories("float16"))


@pytest.mark.parametrize("precision", ["float16", "int8", "int4", "int4_g32"])
def test_logits_are_those_of_openais_model(directories: Lookup, checkpoints: Lookup, precision: str) -> None:
    """Prompt, steps, and rows that become beams and change places."""
    loaded, model = on_the_cpu(directories(precision)), openai_model(checkpoints(precision))
    anchor = np.fromfile(directories(precision) / "end_anchor.bin", np.float16).reshape(50, 128).astype(np.float32)
    states = encode_short(model, MEL, anchor)
    utterance, tokens = loaded.encode(MEL), np.array([[50257, 50362], [50257, 7]])
    np.testing.assert_allclose(utterance.decode(tokens), next_logits(model, tokens, states), atol=CLOSE)
    for sources, window in (([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]), ([2, 0, 1, 5, 4, 3], [0, 0, 0, 1, 1, 1]),
                            ([3, 4, 5], [1, 1, 1])):
        utterance.select(np.array(sources))
        new = RNG.integers(0, 50000, (len(sources), 1))
        tokens = np.concatenate([tokens[sources], new], axis=1)
        np.testing.assert_allclose(utterance.decode(new), next_logits(model, tokens, states[window]), atol=CLOSE)


@pytest.mark.parametrize(("samples", "frames"), [(5000, 768), (768 * 160, 768), (0, 768), (40000, 850)])
def test_log_mel_of_the_device_is_that_of_numpy(engine: CudaEngine, samples: int, frames: int) -> None:
    audio = 0.1 * RNG.standard_normal(samples, dtype=np.float32)
    engine.listen([audio, audio[: samples // 2]], frames)
    found = np.empty((2, 80, frames), np.float32)
    engine.device.download(engine.hearing.mel.address, found)
    np.testing.assert_allclose(found, [log_mel(audio, 80, frames), log_mel(audio[: samples // 2], 80, frames)],
                               atol=1e-4)


def host_search(engine: CudaEngine, mel: np.ndarray, forbidden: list[int], limits: list[int]) -> list[list[int]]:
    """One window after the other, with the logits on the host."""
    found = []
    for window, limit in zip(mel, limits, strict=True):
        utterance, how, feed = engine.encode(window[None]), Greedy(50256, [limit]), PROMPT
        while not how.over[0]:
            logits = utterance.decode(feed)
            logits[:, forbidden] = -np.inf
            feed = np.array([how.choose(0, *how.rank(logits))[1]])
        found.append(how._chosen[0])
    return found


def test_the_devices_greedy_search_finds_what_the_hosts_does(engine: CudaEngine) -> None:
    """With limits that make windows leave the batch one by one."""
    mel = RNG.standard_normal((4, 80, 800), dtype=np.float32)
    limits, best = [1, 12, 3, 7], host_search(engine, mel, [], [1, 1, 1, 1])
    forbidden = sorted({tokens[0] for tokens in best})
    found = engine.encode(mel).greedy(np.repeat(PROMPT, 4, axis=0), forbidden, forbidden, 50256, limits)
    assert [tokens for tokens, _ in found] == host_search(engine, mel, forbidden, limits)
    assert all(total < 0 for _, total in found)


def test_rows_that_go_on_stay_where_they_are() -> None:
    assert greedy.rows_to_keep([False, True, False]) is None
    assert greedy.rows_to_keep([False, True, True, False]) == [0, 3]
    assert greedy.rows_to_keep([True, False, True, True, False, True, False, True]) == [4, 1, 6, 3]
    assert greedy.rows_to_keep([True] * 5) is None


def test_what_the_engine_was_not_built_for_is_refused(engine: CudaEngine) -> None:
    with pytest.raises(UserError, match="5 windows at once"):
        engine.listen([np.zeros(10, np.float32)] * 5, 750)
    with pytest.raises(UserError, match="a window of 900 frames"):
        engine.encode(np.zeros((1, 80, 900), np.float32))
    utterance = engine.encode(MEL)
    with pytest.raises(UserError, match="a prompt of 5 tokens, this engine holds 4"):  # there is no room to put it
        utterance.decode(np.zeros((2, 5), np.int64))
    utterance.decode(np.repeat(PROMPT, 2, axis=0))
    with pytest.raises(ValueError, match="none has to wait"):
        utterance.split(1)
    with pytest.raises(ValueError, match="only a prompt"):
        utterance.decode(np.repeat(PROMPT, 2, axis=0))


ROOT = Path(__file__).parents[3]


def hearing(python: Callable[..., Any], directory: Path, case: str) -> Any:
    """What paged_hearing.py prints, in a process that a stray touch would kill."""
    done = python("tests.backends.onnxruntime_cuda.paged_hearing", directory, case, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_paged_cache_gives_the_same_logits_and_touches_what_it_has_alone(
        directories: Lookup, python: Callable[..., Any], precision: str) -> None:
    """Of prompts, steps, beams that change places, windows that end, and the device's own search."""
    found = hearing(python, directories(precision), "same")
    assert found["equal"]
    loaded, *batches = found["counts"]
    assert loaded == 0
    for encoded, one_window, closed in zip(*[iter(batches)] * 3, strict=True):
        assert encoded > 3 * one_window > closed == 0
    assert batches[0] == batches[6] > batches[3]  # the second batch is of shorter windows


def test_a_stream_of_windows_has_memory_for_its_rows(directories: Lookup, python: Callable[..., Any]) -> None:
    found = hearing(python, directories("float16"), "streamed")
    assert found["equal"]
    assert found["answers"] > 5
    before, begun, *after = found["counts"]
    assert before == 0 < begun
    assert after == [0, 0, 0]


def test_windows_wait_for_pages_and_hear_what_they_hear_alone(directories: Lookup, python: Callable[..., Any]) -> None:
    """Five rows are one window's three beams, or two windows of two; the next window begins when the one before it has
    ended."""
    found = hearing(python, directories("float16"), "waiting")
    assert found["equal"]
    assert found["rooms"] == [1, 2, 4, 1, 0, 0, 0, 1, 1, 1, 0]


def test_a_stray_touch_would_be_seen(directories: Lookup, python: Callable[..., Any]) -> None:
    done = python("tests.backends.onnxruntime_cuda.paged_hearing", directories("float16"), "touch", cwd=ROOT)
    assert done.returncode == -signal.SIGSEGV


def test_a_paged_batch_that_is_wrongly_asked_of_is_as_it_was(directories: Lookup) -> None:
    loaded = on_the_cpu(directories("float16"), KVCache("paged", 8, 15))
    utterance = loaded.encode(RNG.standard_normal((4, 80, 800), dtype=np.float32))
    first = utterance.decode(np.repeat(PROMPT, 4, axis=0))
    with pytest.raises(UserError, match=r"the KV cache is full: 12 of 15 pages .* 6 more are needed"):
        utterance.select(np.array([0, 0, 0, 1, 1, 1]))
    with pytest.raises(ValueError, match="must be adjacent"):
        utterance.select(np.array([0, 1, 0, 2, 3]))
    with pytest.raises(ValueError, match="none has to wait"):
        utterance.split(1)
    utterance.rewind()
    assert np.array_equal(utterance.decode(np.repeat(PROMPT, 4, axis=0)), first)
    utterance.rewind()
    other = utterance.split(1)
    with pytest.raises(ValueError, match="wait until those before them have ended"):
        other.decode(np.repeat(PROMPT, 3, axis=0))
    utterance.close()
    assert np.array_equal(other.decode(np.repeat(PROMPT, 3, axis=0)), first[1:])


def test_a_warm_engine_hears_as_a_cold_one(directories: Lookup) -> None:
    cold, warm = on_the_cpu(directories("int8")), on_the_cpu(directories("int8"))
    warm.warm_up()
    tokens = np.repeat(PROMPT, 2, axis=0)
    np.testing.assert_array_equal(cold.encode(MEL).decode(tokens), warm.encode(MEL).decode(tokens))
