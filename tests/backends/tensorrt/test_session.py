"""The graphs that TensorRT is given, run on the CPU: against OpenAI's own model, and beyond what was built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.model import Whisper

from tests.backends.onnxruntime.reference import encode_short, next_logits, openai_model
from tests.backends.tensorrt.making import declared, graphs
from whisper_factory.backends import tensorrt
from whisper_factory.backends.tensorrt.session import TensorRTEngine, mask
from whisper_factory.errors import UserError
from whisper_factory.whisper.checkpoint import Checkpoint

Lookup = Callable[[str], Path]
RNG = np.random.default_rng(5)
MEL = RNG.standard_normal((2, 80, 850), dtype=np.float32)
# Largest difference from the model in float32, of logits that spread by about two.
CLOSE = {"float32": 2e-4, "float16": 0.03, "int8": 0.03, "int4": 0.03}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    made: dict[str, Path] = {}

    def find(precision: str) -> Path:
        if precision not in made:
            made[precision] = graphs(declared(precision), tmp_path_factory.mktemp(precision))
        return made[precision]

    return find


@pytest.fixture(scope="module")
def engine(directories: Lookup) -> TensorRTEngine:
    return tensorrt.load(directories("float32"), 1)


def multiplied(checkpoint: Path) -> Whisper:
    """OpenAI's model over the weights as DequantizeLinear makes them: in float16, of scales in float16."""
    model, opened = openai_model(checkpoint), Checkpoint.open(checkpoint)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (stored := opened.quantized(name)) is not None:
                q, scale = stored
                weights = q.astype(np.float16) * scale.astype(np.float16)[:, None]
                parameter.copy_(torch.from_numpy(weights.astype(np.float32)))
    return model


@pytest.mark.parametrize("precision", CLOSE)
def test_logits_are_those_of_openais_model(directories: Lookup, precision: str) -> None:
    """Prompt, steps, and rows that become beams and change places."""
    directory = directories(precision)
    loaded, model = tensorrt.load(directory, 1), multiplied(directory.parents[1] / "checkpoint")
    dtype = np.float32 if precision == "float32" else np.float16
    anchor = np.fromfile(directory / "end_anchor.bin", dtype).reshape(50, 128).astype(np.float32)
    states = encode_short(model, MEL, anchor)
    utterance = loaded.encode(MEL)
    tokens = np.array([[50257, 50362], [50257, 7]])
    np.testing.assert_allclose(utterance.decode(tokens), next_logits(model, tokens, states), atol=CLOSE[precision])
    for sources, window in (([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]), ([2, 0, 1, 5, 4, 3], [0, 0, 0, 1, 1, 1]),
                            ([3, 4, 5], [1, 1, 1])):
        utterance.select(np.array(sources))
        new = RNG.integers(0, 50000, (len(sources), 1))
        tokens = np.concatenate([tokens[sources], new], axis=1)
        np.testing.assert_allclose(utterance.decode(new), next_logits(model, tokens, states[window]),
                                   atol=CLOSE[precision])
    utterance.rewind()
    np.testing.assert_allclose(utterance.decode(tokens[:, :1]), next_logits(model, tokens[:, :1], states[window]),
                               atol=CLOSE[precision])


def test_a_whole_window_has_no_anchor(tmp_path: Path) -> None:
    loaded = tensorrt.load(graphs(declared("float32", max_input_len=3000, margin_frames=0), tmp_path), 1)
    model = openai_model(tmp_path / "checkpoint")
    anchor = np.fromfile(tmp_path / "packed" / "end_anchor.bin", np.float32).reshape(50, 128)
    tokens = np.array([[50257, 50362]])
    for frames in (3000, 2000):
        mel = RNG.standard_normal((1, 80, frames), dtype=np.float32)
        states = encode_short(model, mel, anchor if frames < 3000 else anchor[:0])
        np.testing.assert_allclose(loaded.encode(mel).decode(tokens), next_logits(model, tokens, states), atol=2e-4)


def test_what_is_not_used_of_the_cache_is_not_seen(engine: TensorRTEngine) -> None:
    """A second utterance over the first one's leavings is as if it were alone."""
    alone = engine.encode(MEL[:1]).decode(np.array([[50257]]))
    longer = engine.encode(MEL[1:])
    for token in range(5):
        longer.decode(np.array([[token]]))
    assert np.array_equal(engine.encode(MEL[:1]).decode(np.array([[50257]])), alone)


def test_the_mask() -> None:
    assert (mask(4, 2, 1) == 0).tolist() == [[True, True, False, False, True]]
    assert (mask(3, 0, 2) == 0).tolist() == [[False, False, False, True, False], [False, False, False, True, True]]


@pytest.mark.parametrize(("shape", "said"), [
    ((1, 80, 852), r"a window of 852 frames, .* an even number from 750 to 850 \(profile\.max_input_len=750\); "
                   r"padding_strategy=trim, or build one with max_input_len=852"),
    ((1, 80, 748), r"a window of 748 frames, .* an even number from 750 to 850 .*; pad it"),
    ((1, 80, 801), "an even number"),
    ((3, 80, 850), r"3 windows at once, .* 1 to 2; build one with profile\.max_batch_size=3"),
    ((1, 128, 850), r"log-mel of shape .* takes \[batch, 80, frames\]"),
])
def test_windows_beyond_what_was_built(engine: TensorRTEngine, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        engine.encode(np.zeros(shape, np.float32))


def test_tokens_and_rows_beyond_what_was_built(engine: TensorRTEngine) -> None:
    utterance = engine.encode(MEL)
    with pytest.raises(UserError, match="a prompt of 5 tokens, this engine holds 4"):
        utterance.decode(np.zeros((2, 5), np.int64))
    with pytest.raises(UserError, match=r"8 sequences at once, this engine holds 6"):
        utterance.select(np.array([0] * 4 + [1] * 4))
    for step in range(24):
        utterance.decode(np.full((2, 1), step))
    with pytest.raises(UserError, match=r"25 tokens, this engine holds 24 .*max_new_tokens=20"):
        utterance.decode(np.zeros((2, 1), np.int64))


def test_what_no_search_asks_for(engine: TensorRTEngine) -> None:
    utterance = engine.encode(MEL)
    for tokens, said in ((np.zeros((1, 1), np.int64), r"\[2, 1 or more\] needed"),
                         (np.full((2, 1), 51864), "0 to 51863")):
        with pytest.raises(ValueError, match=said):
            utterance.decode(tokens)
    for rows in ([2], [], [0, 1, 0], [0, 0, 1]):
        with pytest.raises(ValueError, match="rows"):
            utterance.select(np.array(rows))
    assert utterance.room(1, 3) == 2
    with pytest.raises(ValueError, match="none has to wait"):
        utterance.split(1)
    engine.encode(MEL[:1])
    with pytest.raises(ValueError, match="closed"):
        utterance.decode(np.zeros((2, 1), np.int64))
