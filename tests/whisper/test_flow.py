"""Who is seated, who is fed, and who leaves, with an engine that says what it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from whisper_factory.backends.engines import Places
from whisper_factory.whisper import flow
from whisper_factory.whisper.beam import BeamSearch
from whisper_factory.whisper.greedy import Greedy
from whisper_factory.whisper.search import Search, Sequenced, Suppression

EOT, PROMPT = 99, [50, 51]


class Scripted:
    """Places whose windows say given tokens. Each row must have been fed what its window has said so far."""

    n_vocab = 100

    def __init__(self, count: int, beams: int, scripts: list[list[int]]) -> None:
        self.count, self._beams, self._scripts = count, beams, scripts
        self.windows: list[int | None] = [None] * count
        self.said = [[0] * beams for _ in range(count)]  # of each row, how many tokens it was fed
        self.steps: list[int] = []  # of how many windows each was
        self.closed = False

    def listen(self, place: int, mel: NDArray[np.float32]) -> None:
        self.windows[place] = int(mel[0, 0])

    def begin(self, place: int, prompt: NDArray[np.int64], bias: NDArray[np.float32], count: int
              ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        assert prompt.tolist() == PROMPT
        assert bias[3] == -np.inf, "what may not begin an answer"
        self.said[place] = [0] * self._beams
        return self._best(place, 0, count)

    def branch(self, place: int, sources: list[int]) -> None:
        self.said[place] = [self.said[place][source] for source in sources]

    def rank(self, tokens: NDArray[np.int64], bias: NDArray[np.float32], count: int
             ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        assert bias[3] == 0
        assert tokens.shape == (self.count * self._beams, 1)
        self.steps.append(self.count)
        rows = []
        for place in range(self.count):
            for beam in range(self._beams):
                script = self._script(place)
                if self._beams == 1:
                    assert tokens[place * self._beams, 0] == script[self.said[place][0]]
                self.said[place][beam] += 1
                rows.append(self._best(place, min(self.said[place][beam], len(script) - 1), count))
        best, logprobs = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        return best, logprobs

    def keep(self, places: list[int]) -> None:
        assert len(places) < self.count
        self.windows, self.said = [self.windows[place] for place in places], [self.said[place] for place in places]
        self.count = len(places)

    def close(self) -> None:
        self.closed = True

    def _script(self, place: int) -> list[int]:
        window = self.windows[place]
        assert window is not None
        return self._scripts[window]

    def _best(self, place: int, said: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The script's next token is nearly certain; others follow."""
        token = self._script(place)[said]
        others = [other for other in range(60, 60 + count) if other != token][: count - 1]
        logprobs = [-0.01, *(-5.0 - rank for rank in range(count - 1))]
        return np.array([[token, *others]]), np.array([logprobs], np.float32)


class Rules(Suppression):
    def __init__(self) -> None:
        pass

    def bias(self, n_vocab: int, first: bool) -> NDArray[np.float32]:
        found = np.zeros(n_vocab, np.float32)
        found[3] = -np.inf if first else 0
        return found


def waiting(scripts: list[list[int]], beams: int, found: dict[int, Sequenced], limit: int) -> Iterator[flow.Waiting]:
    def begin(index: int, places: Places, place: int) -> flow.Begun:
        places.listen(place, np.full((1, 1), index, np.float32))
        how: Search = Greedy(EOT, [limit]) if beams == 1 else BeamSearch(beams, EOT, [limit])
        return flow.Begun(PROMPT, how, partial(found.__setitem__, index))

    for index in range(len(scripts)):
        yield partial(begin, index)


TOKENS = st.integers(0, 40).filter(lambda token: token != 3)


@given(said=st.lists(st.lists(TOKENS, max_size=8), min_size=1, max_size=9), count=st.integers(1, 4))
def test_every_window_says_its_own(said: list[list[int]], count: int) -> None:
    """Whoever sits beside it; and as many go on together as there are places, until none waits."""
    scripts, found = [[*tokens, EOT] for tokens in said], dict[int, Sequenced]()
    places = Scripted(count, 1, scripts)
    flow.run(places, waiting(scripts, 1, found, 50), Rules())
    assert [found[index].tokens for index in range(len(said))] == said
    assert all(one.ended for one in found.values())
    assert sum(places.steps) == sum(map(len, said)), "no row was fed for nothing"
    assert places.steps == sorted(places.steps, reverse=True)
    assert places.closed


@given(said=st.lists(st.lists(TOKENS, min_size=1, max_size=8), min_size=1, max_size=9), count=st.integers(1, 4))
def test_beams(said: list[list[int]], count: int) -> None:
    scripts, found = [[*tokens, EOT] for tokens in said], dict[int, Sequenced]()
    places = Scripted(count, 3, scripts)
    flow.run(places, waiting(scripts, 3, found, 50), Rules())
    expected = {}
    for index in range(len(said)):  # each alone
        flow.run(Scripted(1, 3, scripts), iter([list(waiting(scripts, 3, expected, 50))[index]]), Rules())
    assert found == expected


def test_a_window_that_never_ends_is_cut_off() -> None:
    found = dict[int, Sequenced]()
    scripts = [[1, *[2] * 40], [4, EOT]]
    flow.run(Scripted(2, 1, scripts), waiting(scripts, 1, found, 6), Rules())
    assert found == {0: Sequenced([1, 2, 2, 2, 2, 2], pytest.approx(-0.06), False),
                     1: Sequenced([4], pytest.approx(-0.02), True)}


def test_the_memory_is_given_back_when_a_window_fails() -> None:
    scripts = [[1, EOT], [2, EOT]]
    places = Scripted(1, 1, scripts)

    def failing() -> Iterator[flow.Waiting]:
        yield from list(waiting(scripts, 1, {}, 5))[:1]
        raise ValueError("no audio")

    with pytest.raises(ValueError, match="no audio"):
        flow.run(places, failing(), Rules())
    assert places.closed
