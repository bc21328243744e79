"""Windows: how long, and where long audio is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.whisper.torch_engine import profile
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision, longest_safe_clip, safe_window
from whisper_factory.whisper import windows
from whisper_factory.whisper.dimensions import HOP_LENGTH, Dimensions

TINY = Dimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)


def spec(max_input_len: int, margin_frames: int = 0) -> EngineSpec:
    return EngineSpec("tiny.en", "onnxruntime", TINY, Precision("int8", 8, "float16"),
                      profile(max_input_len=max_input_len, margin_frames=margin_frames), KVCache("paged", 64))


@pytest.mark.parametrize(("clip", "strategy", "engine", "margin", "frames"), [
    (100, "max", 3000, 0, 3000),
    (3000, "max", 3000, 0, 3000),
    (100, "max", 750, 100, 850),
    (0, "nopad", 3000, 0, 750),
    (100, "nopad", 3000, 0, 750),
    (650, "nopad", 3000, 0, 750),
    (651, "nopad", 3000, 0, 752),
    (750, "nopad", 3000, 0, 850),
    (1000, "trim", 3000, 0, 1350),
    (1500, "nopad", 1500, 850, 2350),
    (1825, "nopad", 3000, 0, 3000),
    (100, "nopad", 1500, 0, 750),
    (1450, "nopad", 1500, 0, 1500),
    (740, "nopad", 750, 0, 750),
    (740, "nopad", 750, 100, 840),
    (100, "nopad", 400, 0, 400),
])
def test_the_encoder_sees(clip: int, strategy: windows.PaddingStrategy, engine: int, margin: int, frames: int) -> None:
    assert spec(engine, margin).encoder_frames(clip, strategy) == frames


@pytest.mark.parametrize(("engine", "margin", "longest"), [
    (3000, 0, 3000), (2900, 100, 2900), (1500, 0, 1075), (1500, 850, 1500), (750, 0, 650), (750, 100, 750),
    (100, 0, 50),
])
def test_pieces_leave_the_margin_that_short_windows_want(engine: int, margin: int, longest: int) -> None:
    assert windows.longest_piece(spec(engine, margin)) == longest


@given(clip=st.integers(1, 2999))
def test_the_longest_safe_clip_is_the_inverse_of_the_safe_window(clip: int) -> None:
    window = safe_window(clip)
    assert window % 2 == 0
    if 750 < window < 3000:
        assert clip <= longest_safe_clip(window)
        assert safe_window(longest_safe_clip(window)) == window


@given(samples=st.integers(0, 40 * 16_000), max_input_len=st.sampled_from([100, 256, 750, 1500, 3000]),
       margin=st.sampled_from([0, 100, 850]), seed=st.integers(0, 100), strategy=st.sampled_from(["max", "nopad"]))
@settings(max_examples=80, deadline=None)
def test_the_whole_audio_is_heard_once(
    samples: int, max_input_len: int, margin: int, seed: int, strategy: windows.PaddingStrategy
) -> None:
    audio = np.random.default_rng(seed).standard_normal(samples, dtype=np.float32)
    audio *= np.random.default_rng(seed).random() < 0.8  # sometimes all silence
    engine = spec(max_input_len, margin)
    parts = windows.split(audio, strategy, engine)
    assert (parts[0].start, parts[-1].end) == (0, samples)
    assert all(left.end == right.start for left, right in pairwise(parts))
    if len(parts) == 1:
        assert parts[0].frames <= max_input_len
        return
    assert max(part.frames for part in parts) <= windows.longest_piece(engine)
    assert min(part.frames for part in parts) >= windows.longest_piece(engine) // 5  # no slivers
    for part in parts:
        assert part.frames <= engine.encoder_frames(part.frames, strategy)


@given(longest=st.integers(50, 3000), total=st.integers(1, 20_000))
@settings(max_examples=200, deadline=None)
def test_no_piece_is_too_long(longest: int, total: int) -> None:
    audio = np.zeros(max(longest + 1, total) * HOP_LENGTH, np.float32)
    cuts = [0, *windows.seams(audio, longest), len(audio) // HOP_LENGTH]
    assert min(np.diff(cuts)) > 0
    assert max(np.diff(cuts)) <= longest


def test_trim_keeps_the_beginning() -> None:
    window, = windows.split(np.ones(16_000 * 10, np.float32), "trim", spec(750))
    assert (window.start, window.end) == (0, 750 * HOP_LENGTH)


def test_a_clip_that_fits_is_not_cut() -> None:
    assert len(windows.split(np.ones(750 * HOP_LENGTH, np.float32), "max", spec(750))) == 1
    assert len(windows.split(np.ones(750 * HOP_LENGTH + 1, np.float32), "max", spec(750))) == 2


def test_seams_lie_in_the_pauses() -> None:
    """Noise with pauses of 200 ms, one about every 2 s, as in speech."""
    rng = np.random.default_rng(3)
    audio = 0.3 * rng.standard_normal(60 * 16_000).astype(np.float32)
    pauses = [2.0 * place + rng.uniform(-0.3, 0.3) for place in range(1, 30)]
    for pause in pauses:
        audio[int(16_000 * (pause - 0.1)) : int(16_000 * (pause + 0.1))] *= 0.01
    for longest in (650, 1400, 3000):
        found = windows.seams(audio, longest)
        assert found
        for frame in found:
            assert min(abs(frame / 100 - pause) for pause in pauses) <= 0.1


@pytest.mark.parametrize(("longest", "total"), [(50, 451), (100, 900), (300, 1505)])
def test_seams_are_the_cheapest(monkeypatch: pytest.MonkeyPatch, longest: int, total: int) -> None:
    """Of all ways to cut, tried one place after the other."""
    places, most = -(-total // windows.GRID), longest // windows.GRID
    least, inf = max(1, int(windows.SHORTEST * most)), float("inf")
    for seed in range(20):
        loudness = np.random.default_rng(seed).random(total)
        monkeypatch.setattr(windows, "_loudness", lambda audio, loudness=loudness: loudness)

        def cost(start: int, end: int, loudness: NDArray[np.float64] = loudness) -> float:
            """Of a piece, and of the seam at its end."""
            seam = 0.0 if end == places else float(loudness[end * windows.GRID])
            return seam + windows.PIECE * (1 + ((end - start) / most) ** 2) if least <= end - start <= most else inf

        cheapest = [0.0]
        for end in range(1, places + 1):
            cheapest.append(min(cheapest[start] + cost(start, end) for start in range(end)))
        found = [0, *(cut // windows.GRID for cut in windows.seams(np.zeros(total * HOP_LENGTH, np.float32), longest))]
        assert sum(cost(*piece) for piece in pairwise([*found, places])) == pytest.approx(cheapest[-1], rel=1e-9)


def test_in_silence_pieces_are_equal() -> None:
    assert windows.seams(np.zeros(4000 * HOP_LENGTH, np.float32), 3000) == [2000]


@pytest.mark.parametrize(("language", "joined"), [
    (None, "one two"), ("en", "one two"), ("ko", "one two"), ("ja", "onetwo"), ("zh", "onetwo"), ("th", "onetwo"),
    ("lo", "onetwo"), ("my", "onetwo"), ("yue", "onetwo"),
])
def test_texts_are_joined(language: str | None, joined: str) -> None:
    assert windows.join(["one", "", "two"], language) == joined
    assert windows.join(["", ""], language) == ""
