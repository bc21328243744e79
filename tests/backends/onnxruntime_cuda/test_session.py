"""The graphs that a GPU is given, run on the CPU: against OpenAI's own model, and a search that runs ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.backends.onnxruntime.reference import encode_short, next_logits, openai_model
from tests.backends.onnxruntime_cuda.making import built, declared, on_the_cpu
from whisper_factory.backends.onnxruntime_cuda import greedy
from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine
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
            feed = np.array([how.choose(0, logits)[1]])
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
    with pytest.raises(ValueError, match="none has to wait"):
        utterance.split(1)
    utterance.decode(np.repeat(PROMPT, 2, axis=0))
    with pytest.raises(ValueError, match="only a prompt"):
        utterance.decode(np.repeat(PROMPT, 2, axis=0))


def test_a_warm_engine_hears_as_a_cold_one(directories: Lookup) -> None:
    cold, warm = on_the_cpu(directories("int8")), on_the_cpu(directories("int8"))
    warm.warm_up()
    tokens = np.repeat(PROMPT, 2, axis=0)
    np.testing.assert_array_equal(cold.encode(MEL).decode(tokens), warm.encode(MEL).decode(tokens))
