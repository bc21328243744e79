"""Windows that begin and end apart: what is ranked for each is what it is when it is decoded alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.backends.onnxruntime.making import respecified
from tests.backends.onnxruntime.test_session import windows
from whisper_factory.backends import onnxruntime
from whisper_factory.backends.onnxruntime.places import OnnxRuntimePlaces
from whisper_factory.backends.onnxruntime.session import Lane, OnnxRuntimeEngine
from whisper_factory.errors import UserError

Lookup = Callable[[str], Path]
FRAMES, BEAMS, COUNT = (20, 42, 60), 2, 3
PROMPT = np.array([7, 3])


def lane_of(directory: Path) -> Lane:
    engine = onnxruntime.load(directory, 1)
    assert isinstance(engine, OnnxRuntimeEngine)
    (lane,) = engine.lanes(threading.Event())
    return lane


class Alone:
    """A window decoded by itself, its beams one after the other."""

    def __init__(self, lane: Lane, mel: NDArray[np.float32]) -> None:
        self.lane, self.mel = lane, mel
        self.beams: list[list[int]] = [[]]  # tokens after the prompt
        self.bias = np.zeros(lane.spec.dimensions.n_vocab, np.float32)

    def ranked(self) -> list[tuple[list[int], NDArray[np.float32]]]:
        """The next tokens of each beam, everything computed anew."""
        found = []
        for tokens in self.beams:
            utterance = self.lane.encode(self.mel[None])
            best, logprobs = utterance.rank(PROMPT[None], self.bias, COUNT)
            for token in tokens:
                best, logprobs = utterance.rank(np.array([[token]]), self.bias, COUNT)
            utterance.close()
            found.append((best[0].tolist(), logprobs[0]))
        return found


def check(ranked: tuple[NDArray[np.int64], NDArray[np.float32]], alone: list[tuple[list[int], NDArray[np.float32]]]
          ) -> None:
    for tokens, logprobs, (expected, exact) in zip(*ranked, alone, strict=True):
        assert tokens.tolist() == expected
        np.testing.assert_allclose(logprobs, exact, atol=1e-4)


@pytest.mark.parametrize("mode", ["contiguous", "paged"])
@given(data=st.data())
@settings(max_examples=8, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_windows_are_what_they_are_alone(engines: Lookup, tmp_path_factory: pytest.TempPathFactory, mode: str,
                                         data: st.DataObject) -> None:
    """Of any lengths. Some begin anew, all go on with any tokens of any beams, some are given up."""
    directory = respecified(engines("int8"), tmp_path_factory.mktemp("engine") / mode, mode=mode, page=5)
    lane, other = lane_of(directory), lane_of(directory)
    count = data.draw(st.integers(1, 3))
    places, bias = lane.places(count, FRAMES, BEAMS), np.zeros(lane.spec.dimensions.n_vocab, np.float32)
    alone: list[Alone] = [None] * count  # type: ignore[list-item]

    def begin(place: int) -> None:
        alone[place] = Alone(other, windows(1, data.draw(st.sampled_from(FRAMES)), data.draw(st.integers(0, 99)))[0])
        places.listen(place, alone[place].mel)
        check(places.begin(place, PROMPT, bias, COUNT), alone[place].ranked())
        places.branch(place, [0] * BEAMS)
        alone[place].beams = [[]] * BEAMS

    for place in range(count):
        begin(place)
    for _ in range(data.draw(st.integers(1, 5))):
        tokens = data.draw(st.lists(st.integers(0, 50), min_size=count * BEAMS, max_size=count * BEAMS))
        for place in range(count):
            own = tokens[place * BEAMS:(place + 1) * BEAMS]
            alone[place].beams = [[*beam, token] for beam, token in zip(alone[place].beams, own, strict=True)]
        check(places.rank(np.array(tokens)[:, None], bias, COUNT), [one for window in alone for one in window.ranked()])
        for place in range(count):
            sources = data.draw(st.lists(st.integers(0, BEAMS - 1), min_size=BEAMS, max_size=BEAMS))
            places.branch(place, sources)
            alone[place].beams = [alone[place].beams[source] for source in sources]
        if data.draw(st.booleans()):
            begin(data.draw(st.integers(0, count - 1)))
        elif count > 1 and data.draw(st.booleans()):
            kept = data.draw(st.permutations(range(count)))[:-1]
            places.keep(list(kept))
            alone, count = [alone[place] for place in kept], count - 1
    places.close()
    assert lane.memory.pages_in_use == 0


@pytest.fixture
def places(engines: Lookup, tmp_path: Path) -> OnnxRuntimePlaces:
    return lane_of(respecified(engines("int8"), tmp_path / "engine", max_new_tokens=3)).places(2, FRAMES, 1)


def test_a_sequence_that_would_be_too_long_is_refused(places: OnnxRuntimePlaces) -> None:
    """And the others can go on."""
    bias, mel = np.zeros(places.n_vocab, np.float32), windows(1, FRAMES[-1])[0]
    for place in range(2):
        places.listen(place, mel)
        places.begin(place, PROMPT, bias, 1)
    longest = places._lane.spec.max_tokens
    for _ in range(longest - len(PROMPT)):
        places.rank(np.array([[1], [2]]), bias, 1)
    places.listen(0, mel)
    places.begin(0, PROMPT, bias, 1)
    with pytest.raises(UserError, match=f"{longest + 1} tokens, this engine holds {longest}"):
        places.rank(np.array([[1], [2]]), bias, 1)
    places.keep([0])
    places.rank(np.array([[1]]), bias, 1)
    assert places.length == len(PROMPT) + 1


def test_closed(places: OnnxRuntimePlaces) -> None:
    places.listen(0, windows(1, FRAMES[-1])[0])
    places.close()
    with pytest.raises(ValueError, match="closed"):
        places.rank(np.zeros((0, 1), np.int64), np.zeros(places.n_vocab, np.float32), 1)
