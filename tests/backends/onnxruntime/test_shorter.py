"""A window in a longer place: it is there in full, and what lies behind it is not heard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.backends.onnxruntime.making import respecified
from tests.backends.onnxruntime.test_session import PROMPT, windows
from whisper_factory.backends import onnxruntime
from whisper_factory.backends.onnxruntime.session import OnnxRuntimeEngine
from whisper_factory.backends.onnxruntime.shorter import NOTHING, Part

SHORT, LONG = 200, 2998
PLACES = {"cross_k_0": ((1, 2, 4, 7), np.int8), "cross_v_0": ((1, 2, 7, 4), np.int8),
          "cross_k_0_sum": ((1, 2, 1, 1, 7), np.float32), "cross_v_0_scale": ((1, 1, 8), np.float32)}


@pytest.mark.parametrize("positions", [1, 4, 6, 7])
@pytest.mark.parametrize("name", PLACES)
def test_what_was_written_lies_at_the_beginning(name: str, positions: int) -> None:
    shape, kind = PLACES[name]
    place = np.full(shape, 99, kind)
    part = Part(name, place, positions)
    wanted = np.arange(part.written.size).reshape(part.written.shape).astype(kind)
    part.written[:] = wanted
    assert np.shares_memory(part.written, place)
    assert part.written.flags.c_contiguous
    part.spread()
    axis = 2 if name == "cross_v_0" else -1
    own, rest = (place, place[..., :0]) if name.endswith("scale") else np.split(place, [positions], axis)
    assert np.array_equal(own, wanted)
    if name.endswith("sum"):
        assert (rest == NOTHING).all()


def test_a_window_that_is_longer_than_its_place_is_refused() -> None:
    with pytest.raises(ValueError, match="8 positions, the place has 7"):
        Part("cross_k_0", np.zeros(PLACES["cross_k_0"][0], np.int8), 8)


@pytest.mark.parametrize("mode", ["contiguous", "paged"])
def test_what_lies_behind_a_window_is_not_heard(engines: Callable[[str], Path], tmp_path: Path, mode: str) -> None:
    """Whatever it is, the same bits come out."""
    engine = onnxruntime.load(respecified(engines("int8"), tmp_path / mode, mode=mode, page=5), 1)
    assert isinstance(engine, OnnxRuntimeEngine)
    (lane,) = engine.lanes(threading.Event())
    bias, rng, found = np.zeros(engine.spec.dimensions.n_vocab, np.float32), np.random.default_rng(0), []
    for garbage in (False, True):
        places = lane.places(1, {SHORT, LONG}, 1)
        places.listen(0, windows(1, SHORT)[0])
        if garbage:
            own = SHORT // 2 + engine.spec.profile.end_anchor
            for index, tensor in enumerate(places._block.cross):
                rest = tensor[:, :, own:] if index % 2 else tensor[..., own:]
                rest[:] = rng.integers(-128, 128, rest.shape)
        ranked = [places.begin(0, np.array(PROMPT), bias, 9)]
        ranked += [places.rank(np.array([[token]]), bias, 9) for token in PROMPT]
        found.append(ranked)
        places.close()
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


def test_the_most_frames_may_have_fewer_positions(engines: Callable[[str], Path]) -> None:
    """Those of 30 s have no anchor: below, there are 49 more than 1500."""
    engine = onnxruntime.load(engines("int8"), 1)
    assert isinstance(engine, OnnxRuntimeEngine)
    (lane,) = engine.lanes(threading.Event())
    bias, most = np.zeros(engine.spec.dimensions.n_vocab, np.float32), 3000

    def ranked(frames: int, among: set[int]) -> tuple[int, NDArray[np.float32]]:
        places = lane.places(1, among, 1)
        places.listen(0, windows(1, frames)[0])
        length, (_, logprobs) = places._block.cross[0].shape[-1], places.begin(0, np.array(PROMPT), bias, 9)
        places.close()
        return length, logprobs

    for frames, alone in ((LONG, 1549), (most, 1500)):
        length, wanted = ranked(frames, {frames})
        among, found = ranked(frames, {LONG, most})
        assert (length, among) == (alone, 1549)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
