"""More windows than rows: each is heard as if it were alone, whoever ends when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.backends.onnxruntime_cuda.making import built, declared, on_the_cpu
from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine

Lookup = Callable[[str], Path]
Found = list[tuple[list[int], float]]
FRAMES, EOT = 768, 50256


@pytest.fixture(scope="module")
def engine(checkpoints: Lookup, tmp_path_factory: pytest.TempPathFactory) -> CudaEngine:
    place = tmp_path_factory.mktemp("stream") / "engine"
    return on_the_cpu(built(checkpoints("float16"), declared("float16", max_batch_size=8, max_beam_width=1), place))


def audio(count: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(11)
    return [(rng.uniform(0.01, 0.5) * rng.standard_normal(rng.integers(2000, 120_000))).astype(np.float32)
            for _ in range(count)]


def prompts(count: int) -> NDArray[np.int64]:
    return np.stack([[50257, 300 + window] for window in range(count)])


def alone(engine: CudaEngine, clips: list[NDArray[np.float32]], limits: list[int], first: list[int],
          later: list[int], eot: int = EOT) -> Found:
    return [engine.listen([clip], FRAMES).greedy(prompt[None], first, later, eot, [limit])[0]
            for clip, prompt, limit in zip(clips, prompts(len(clips)), limits, strict=True)]


@pytest.mark.parametrize(("rows", "limits"), [
    (8, [1 + 7 * window % 20 for window in range(21)]),  # they leave one by one
    (8, [20] * 21),  # all at once
    (8, [20, *[1] * 20]),  # one holds out while all others come and go
    (8, [3] * 8 + [20]),  # one more than there are rows
    (3, [2 + window % 5 for window in range(8)]),
    (1, [4, 2, 5]),
])
def test_every_window_is_heard_as_if_alone(engine: CudaEngine, rows: int, limits: list[int]) -> None:
    clips = audio(len(limits))
    likely = [tokens[0] for tokens, _ in alone(engine, clips, [1] * len(clips), [], [])]
    first, later = sorted(set(likely)), sorted(set(likely[::2]))
    wanted = alone(engine, clips, limits, first, later)
    found = engine.stream(clips, FRAMES, rows).greedy(prompts(len(clips)), first, later, EOT, limits)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in wanted]
    np.testing.assert_allclose([total for _, total in found], [total for _, total in wanted], atol=0.05)
    assert len({tuple(tokens) for tokens, _ in wanted}) > len(limits) // 2  # else it would not matter who is who


def test_a_window_that_says_it_has_ended_makes_room(engine: CudaEngine) -> None:
    """The second token of one window ends every answer that has it."""
    clips, limits = audio(12), [20] * 12
    eot = alone(engine, clips, limits, [], [])[0][0][1]
    found = engine.stream(clips, FRAMES, 4).greedy(prompts(12), [], [], eot, limits)
    wanted = alone(engine, clips, limits, [], [], eot)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in wanted]
    assert min(len(tokens) for tokens, _ in found) < 20


def test_idle_rows_never_outgrow_the_cache(engine: CudaEngine) -> None:
    """However long others go on: lengths on the device stay within its capacity after every step."""
    seen, run = [], engine.step

    def watched(*about: int) -> object:
        lengths = np.empty(engine.spec.max_rows, np.int32)
        engine.device.download(engine.past.address, lengths)
        seen.append(int(lengths[: about[0]].max()))
        return run(*about)

    limits = [1, 1, 1, 1, *[20] * 12, 1]
    engine.step = watched  # type: ignore[method-assign, assignment]
    try:
        engine.stream(audio(17), FRAMES, 8).greedy(prompts(17), [], [], EOT, limits)
    finally:
        del engine.step
    assert len(seen) > 40
    assert max(seen) < engine.caches.capacity


def test_the_prompts_must_fit(engine: CudaEngine) -> None:
    utterance = engine.stream(audio(9), FRAMES, 8)
    with pytest.raises(ValueError, match="a token is 0 to"):
        utterance.greedy(np.full((9, 2), -1), [], [], EOT, [3] * 9)
