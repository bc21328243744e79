"""The runtime: KV caches that stay where they are, both KV modes, batches, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.backends.onnxruntime.making import build, make_checkpoint, respecified
from tests.tiny_model import tiny_weights
from whisper_factory import backends
from whisper_factory.backends import onnxruntime
from whisper_factory.backends.engines import RankingUtterance
from whisper_factory.backends.onnxruntime.session import OnnxRuntimeEngine, OnnxRuntimeUtterance
from whisper_factory.errors import UserError
from whisper_factory.whisper.beam import most_probable

Lookup = Callable[[str], Path]
PROMPT = [50257, 50362]


def windows(batch: int, frames: int, seed: int = 0) -> NDArray[np.float32]:
    """Log-mel of nothing in particular."""
    return 0.5 * np.random.default_rng(seed).standard_normal((batch, 80, frames), dtype=np.float32)


def prompts(rows: int) -> NDArray[np.int64]:
    return np.tile(np.array(PROMPT), (rows, 1))


def beam_like(engine: OnnxRuntimeEngine, mel: NDArray[np.float32], steps: int) -> list[NDArray[np.float32]]:
    """Logits of a decoding that branches, exchanges rows and ends with one window fewer."""
    utterance, rng = engine.encode(mel), np.random.default_rng(1)
    logits = [utterance.decode(prompts(len(mel)))]
    utterance.select(np.repeat(np.arange(len(mel)), 3))
    for step in range(steps):
        logits.append(utterance.decode(rng.integers(0, 50000, (utterance.rows, 1))))
        first = np.arange(0, utterance.rows, 3)[:, None]
        utterance.select((first + rng.integers(0, 3, (len(first), 3))).ravel())
        if step == steps // 2:
            utterance.select(np.arange(3, utterance.rows))
    utterance.close()
    return logits


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_paged_and_contiguous_give_the_same_logits(engines: Lookup, tmp_path: Path, precision: str) -> None:
    logits = {}
    for mode in ("contiguous", "paged"):
        engine = onnxruntime.load(respecified(engines(precision), tmp_path / mode, mode=mode, page=5))
        logits[mode] = [*beam_like(engine, windows(3, 200), 16), *beam_like(engine, windows(2, 120), 10)]
    for contiguous, paged in zip(logits["contiguous"], logits["paged"], strict=True):
        assert np.array_equal(contiguous, paged)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("int8", 0.15)])
def test_batch_equals_singles(engines: Lookup, precision: str, tolerance: float) -> None:
    engine = onnxruntime.load(engines(precision))
    mel = windows(3, 100)
    together = engine.encode(mel)
    steps = [prompts(3), np.array([[5], [6], [7]]), np.array([[50], [60], [70]])]
    logits = [together.decode(step) for step in steps]
    for row in range(3):
        alone = engine.encode(mel[row : row + 1])
        for step, expected in zip(steps, logits, strict=True):
            # Not the same bits: one row is a matrix times a vector, which is summed in another order. So in int8 an
            # activation may be rounded the other way; another window's logits are several units off.
            np.testing.assert_allclose(alone.decode(step[row : row + 1])[0], expected[row], atol=tolerance)


def addresses(utterance: OnnxRuntimeUtterance) -> list[int]:
    return [tensor.ctypes.data for tensor in utterance._block.past]


def test_past_is_updated_in_place(engines: Lookup) -> None:
    """Of the bound buffers only the new token's place is written, whatever the rest holds."""
    utterance = onnxruntime.load(engines("float32")).encode(windows(2, 50))
    utterance.decode(prompts(2))
    where = addresses(utterance)
    for tensor in utterance._block.past:
        tensor[:, :, 2:] = np.nan  # beyond what is in use: neither read nor copied
    before = [tensor.copy() for tensor in utterance._block.past]
    for length in (3, 4):
        assert np.isfinite(utterance.decode(np.array([[100], [200]]))).all()
        for old, new in zip(before, utterance._block.past, strict=True):
            assert np.array_equal(old[:, :, : length - 1], new[:, :, : length - 1])
            assert np.isfinite(new[:, :, length - 1]).all()
            assert np.isnan(new[:, :, length:]).all()
        before = [tensor.copy() for tensor in utterance._block.past]
    assert addresses(utterance) == where


@pytest.mark.alone
def test_time_of_a_token_does_not_grow_with_the_capacity(tmp_path: Path) -> None:
    """Copying a past of 448 tokens for 32 rows would take ten times as long as the step itself."""
    weights = tiny_weights(n_vocab=500, n_audio_layer=1)
    checkpoint = make_checkpoint(tmp_path / "checkpoint", weights, "float32")
    engine = build(checkpoint, tmp_path / "engine", end_anchor=0)
    fastest = {}
    for new_tokens in (20, 444):
        directory = respecified(engine, tmp_path / str(new_tokens), max_batch_size=32, max_beam_width=1, end_anchor=0,
                                max_input_len=20, max_new_tokens=new_tokens)
        utterance = onnxruntime.load(directory, threads=1).encode(windows(32, 20))
        times = []
        for _ in range(16):
            start = time.perf_counter()
            utterance.decode(np.ones((32, 1), np.int64))
            times.append(time.perf_counter() - start)
        assert utterance._block.past[0].shape[2] == new_tokens + 4
        fastest[new_tokens] = min(times)
    assert fastest[444] < 3 * fastest[20]


def test_contiguous_memory_is_taken_once(engines: Lookup) -> None:
    engine = onnxruntime.load(engines("float32"))
    first = engine.encode(windows(3, 60))
    where = addresses(first), [tensor.ctypes.data for tensor in first._block.cross]
    first.decode(prompts(3))
    first.select(np.array([0, 0, 2, 2]))
    assert (addresses(first), [tensor.ctypes.data for tensor in first._block.cross]) == where
    second = engine.encode(windows(1, 30))
    assert (addresses(second), [tensor.ctypes.data for tensor in second._block.cross]) == where


def test_paged_memory_grows_by_a_page(engines: Lookup, tmp_path: Path) -> None:
    engine = onnxruntime.load(respecified(engines("float32"), tmp_path / "engine", mode="paged", page=4))
    utterance = engine.encode(windows(2, 60))
    assert utterance._block.cross[0].shape == (2, 2, 30 + 50, 64)
    where, pages = addresses(utterance), []
    for _ in range(44):
        utterance.decode(np.ones((2, 1), np.int64))
        pages.append(engine.memory.pages_in_use)
    assert pages == [2 * (1 + length // 4) for length in range(44)]
    assert addresses(utterance) == where, "the past never moves"
    utterance.close()
    assert engine.memory.pages_in_use == 0
    assert not utterance.rows


def test_a_full_pool_is_told_and_harms_nothing(engines: Lookup, tmp_path: Path) -> None:
    """Neither the utterance, which can go on when there is room again, nor the engine."""
    directory = respecified(engines("float32"), tmp_path / "engine", mode="paged", page=4, pages=9)
    engine, mel = onnxruntime.load(directory), windows(3, 60)
    plenty = onnxruntime.load(engines("float32")).encode(mel)
    utterance = engine.encode(mel)
    fed = np.random.default_rng(0).integers(0, 50000, (13, 3, 1))
    for tokens in fed[:12]:
        utterance.decode(tokens)
    assert [utterance.room(new, beams) for new, beams in ((1, 1), (0, 1), (0, 2))] == [0, 3, 0]
    with pytest.raises(UserError, match=r"the KV cache is full: 9 of 9 pages .* 3 more are needed.*\(99 are enough"):
        utterance.decode(fed[12])
    with pytest.raises(UserError, match="the KV cache is full"):
        utterance.select(np.array([0, 0, 1, 1, 2, 2]))
    assert (utterance.length, utterance.rows, engine.memory.pages_in_use) == (12, 3, 9)
    utterance.select(np.array([1, 2]))
    last = utterance.decode(fed[12, 1:])
    for tokens in fed[:12]:
        plenty.decode(tokens)
    plenty.select(np.array([1, 2]))
    assert np.array_equal(last, plenty.decode(fed[12, 1:]))
    engine.encode(mel)
    assert engine.memory.pages_in_use == 0


@pytest.mark.parametrize("beams", [1, 3])
def test_windows_that_are_split_off_go_on_as_before(engines: Lookup, tmp_path: Path, beams: int) -> None:
    directory = respecified(engines("int8"), tmp_path / "engine", mode="paged", page=4)
    engine, mel, rng = onnxruntime.load(directory), windows(3, 60), np.random.default_rng(0)
    before, after = rng.integers(0, 50000, (5, 3, 1)), rng.integers(0, 50000, (5, 3 * beams, 1))

    def logits(order: list[int]) -> list[NDArray[np.float32]]:
        """Of each window, where the first is decoded on alone, and the others before or after it."""
        first = engine.encode(mel)
        for tokens in before:
            first.decode(tokens)
        parts = [first, first.split(1)]
        found: list[list[NDArray[np.float32]]] = [[], []]
        for part in order:
            own = slice(0, beams) if part == 0 else slice(beams, None)
            parts[part].select(np.repeat(np.arange(parts[part].rows), beams))
            found[part] = [parts[part].decode(tokens[own]) for tokens in after]
        parts[1].close()
        assert engine.memory.pages_in_use == 3 * beams, "the other part's: three pages a row"
        return [np.concatenate(step) for step in zip(*found, strict=True)]

    for one, other in zip(logits([0, 1]), logits([1, 0]), strict=True):
        assert np.array_equal(one, other)
    whole = engine.encode(mel)
    for tokens in before:
        whole.decode(tokens)
    whole.select(np.repeat(np.arange(3), beams))
    together = [whole.decode(tokens) for tokens in after]
    for expected, parted in zip(together, logits([0, 1]), strict=True):
        # Not the same bits: another number of rows is summed, and rounded, in another order.
        assert np.abs(parted - expected).mean() < 0.02 * expected.std()


def test_logits_are_the_callers_to_keep(engines: Lookup) -> None:
    utterance = onnxruntime.load(engines("float32")).encode(windows(1, 20))
    first = utterance.decode(np.array([[1]]))
    kept = first.copy()
    utterance.decode(np.array([[2]]))
    assert np.array_equal(first, kept)


def test_what_was_asked_for_before_is_not_written_again(engines: Lookup) -> None:
    """Its memory may be another's by then: a window that is heard on asks for logits first, then for a ranking."""
    utterance = onnxruntime.load(engines("float32")).encode(windows(1, 20))
    bias = np.zeros(utterance.n_vocab, np.float32)
    logits = utterance.decode(np.array([[1]]))
    kept = logits.copy()
    ranked = utterance.rank(np.array([[2]]), bias, 3)
    assert np.array_equal(logits, kept)
    again = [array.copy() for array in ranked]
    utterance.decode(np.array([[3]]))
    for array, before in zip(ranked, again, strict=True):
        assert np.array_equal(array, before)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_ranking_is_of_the_logits_with_the_bias(engines: Lookup, precision: str) -> None:
    engine, mel = onnxruntime.load(engines(precision), 1), windows(2, 100)
    logits = engine.encode(mel).decode(prompts(2))
    bias = np.zeros(logits.shape[1], np.float32)
    bias[logits[0].argsort()[-3:]] = -np.inf
    utterance = engine.encode(mel)
    tokens, logprobs = utterance.rank(prompts(2), bias, 5)
    expected, exact = most_probable(logits + bias, 5)
    assert isinstance(utterance, RankingUtterance)
    assert tokens.tolist() == expected.tolist()
    np.testing.assert_allclose(logprobs, exact, atol=1e-4)
    np.testing.assert_array_equal(utterance.rank(tokens[:, :1], bias, 2)[0].shape, (2, 2))  # another count, bound anew
    assert utterance.length == len(PROMPT) + 1


def test_encoding_closes_the_utterance_before(engines: Lookup) -> None:
    engine = onnxruntime.load(engines("float32"))
    old = engine.encode(windows(1, 20))
    engine.encode(windows(1, 20))
    with pytest.raises(ValueError, match="closed"):
        old.decode(np.array([[1]]))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 80, 20), "4 windows at once, this engine takes 1 to 3"),
        ((0, 80, 20), "0 windows"),
        ((1, 128, 20), r"takes \[batch, 80, frames\]"),
        ((80, 20), r"takes \[batch, 80, frames\]"),
        ((1, 80, 502), "502 frames, this engine takes an even number from 2 to 500"),
        ((1, 80, 21), "even number"),
    ],
)
def test_windows_that_are_refused(engines: Lookup, tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    engine = onnxruntime.load(respecified(engines("float32"), tmp_path / "engine", max_input_len=500))
    with pytest.raises(UserError, match=words):
        engine.encode(np.zeros(shape, np.float32))


def test_steps_that_are_refused(engines: Lookup, tmp_path: Path) -> None:
    directory = respecified(engines("float32"), tmp_path / "engine", max_new_tokens=2, max_beam_width=2)
    utterance = onnxruntime.load(directory).encode(windows(3, 20))
    with pytest.raises(UserError, match="7 tokens, this engine holds 6"):
        utterance.decode(np.ones((3, 7), np.int64))
    with pytest.raises(ValueError, match=r"\[3, 1 or more\] needed"):
        utterance.decode(np.ones((2, 1), np.int64))
    utterance.decode(prompts(3))
    with pytest.raises(ValueError, match="only a prompt"):
        utterance.decode(np.ones((3, 2), np.int64))
    with pytest.raises(UserError, match="9 sequences at once, this engine holds 6"):
        utterance.select(np.repeat(np.arange(3), 3))
    for rows in ([0, 1, 0], [0, 0, 1], [3], [-1], []):  # split, uneven, none such, none such, none
        with pytest.raises(ValueError, match="rows"):
            utterance.select(np.array(rows, np.int64))
    assert utterance.decode(np.ones((3, 1), np.int64)).shape == (3, 51864), "still usable"


def test_engines_that_cannot_be_loaded(engines: Lookup, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an engine directory"):
        onnxruntime.load(tmp_path)
    directory = respecified(engines("float32"), tmp_path / "engine")
    (directory / "decoder.weights").unlink()
    (directory / "decoder.weights").write_bytes(b"short")
    with pytest.raises(UserError, match="build the engine again") as caught:
        onnxruntime.load(directory)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="threads=0"):
        onnxruntime.load(engines("float32"), threads=0)


def test_running_needs_neither_onnx_nor_torch(engines: Lookup) -> None:
    code = ("import sys, numpy as np; from pathlib import Path; from whisper_factory import backends\n"
            "engine = backends.load(Path(sys.argv[1]), threads=1)\n"
            "print(engine.encode(np.zeros((1, 80, 20), np.float32)).decode(np.array([[1, 2]])).shape)\n"
            "assert not {'onnx', 'torch', 'safetensors'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, engines("int8")], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 51864)", done.stderr


def test_the_package_is_a_backend(engines: Lookup) -> None:
    assert backends.load(engines("float32")).spec.backend == "onnxruntime"
