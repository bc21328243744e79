"""KV memory against plain arrays, in both modes, and what the system says of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.onnxruntime.making import make_spec
from tests.tiny_model import tiny_dimensions
from whisper_factory import resident
from whisper_factory.backends.onnxruntime import sizes
from whisper_factory.backends.onnxruntime.kvcache import KVBlock, KVMemory
from whisper_factory.errors import UserError

Action = tuple[str, int]
SIZES = tiny_dimensions(n_text_layer=1, n_text_state=16, n_audio_state=16)  # heads of 8
KINDS = ["token", "token", "token", "rows", "rows", "beams", "beams", "split", "rewind", "close"]
actions = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 999)), max_size=40)


class Plain:
    """What a block should hold: keys and values as arrays [2, rows, heads, tokens, head size]."""

    def __init__(self, block: KVBlock, past: np.ndarray, cross: np.ndarray) -> None:
        self.block, self.past, self.cross = block, past, cross

    @property
    def length(self) -> int:
        return int(self.past.shape[3])

    def check(self) -> None:
        assert np.array_equal(np.stack([tensor[:, :, : self.length] for tensor in self.block.past]), self.past)
        assert np.array_equal(np.stack(self.block.cross), self.cross)

    def feed(self, rng: np.random.Generator) -> None:
        self.block.reserve(self.length + 1)
        new = rng.standard_normal((2, self.block.rows, 2, 1, 8), dtype=np.float32)
        for tensor, values in zip(self.block.past, new, strict=True):
            tensor[:, :, self.length : self.length + 1] = values
        self.past = np.concatenate([self.past, new], axis=3)

    def select(self, rows: np.ndarray, windows: np.ndarray) -> None:
        self.block.select_rows(rows, self.length)
        self.block.select_windows(windows)
        self.past, self.cross = self.past[:, rows], self.cross[:, windows]

    def split(self, windows: int) -> Plain:
        rows = self.block.rows // self.block.windows * windows
        other = Plain(self.block.split(windows, self.length), self.past[:, rows:], self.cross[:, windows:])
        self.past, self.cross = self.past[:, :rows], self.cross[:, :windows]
        return other


def opened(memory: KVMemory, windows: int, rng: np.random.Generator) -> Plain:
    """Windows of 7 positions."""
    block, cross = memory.open(windows, 7), rng.standard_normal((2, windows, 2, 7, 8), dtype=np.float32)
    for tensor, values in zip(block.cross, cross, strict=True):
        tensor[:] = values
    return Plain(block, np.zeros((2, windows, 2, 0, 8), np.float32), cross)


def act(parts: list[Plain], action: str, number: int, rng: np.random.Generator) -> None:
    """One step on one part, and on the arrays."""
    part = parts[number % len(parts)]
    block, beams = part.block, part.block.rows // part.block.windows
    if action == "token" and part.length < 44:
        part.feed(rng)
    elif action in ("rows", "beams"):  # of any windows in any order, or new beams for all of them
        chosen = rng.permutation(block.windows)[: 1 + number % block.windows]
        chosen = chosen if action == "rows" else np.arange(block.windows)
        wide = 1 + number % 3 if action == "rows" else beams
        part.select((beams * chosen[:, None] + rng.integers(0, beams, (len(chosen), wide))).ravel(), chosen)
    elif action == "rewind":
        block.reserve(0)
        part.past = part.past[:, :, :, :0]
    elif action == "split" and block.windows > 1:
        parts.append(part.split(1 + number % (block.windows - 1)))
    elif action == "close" and len(parts) > 1:
        block.close()
        parts.remove(part)


@pytest.mark.parametrize("mode", ["contiguous", "paged"])
@given(todo=actions)
@settings(max_examples=120, deadline=None)
def test_rows_keep_their_past(mode: str, todo: list[Action]) -> None:
    """Whatever is appended, reordered, branched, dropped, split off, rewound and closed, in whatever order."""
    spec = make_spec(SIZES, mode=mode, page=3, max_new_tokens=200)  # rows of several pages of the system's
    memory, rng = KVMemory(spec), np.random.default_rng(0)
    parts = [opened(memory, 3, rng)]
    for action, number in todo:
        act(parts, action, number, rng)
        for part in parts:
            part.check()
        used = sum(part.block.rows * sizes.pages(spec, part.length) for part in parts)
        assert memory.pages_in_use == used <= memory.most_pages <= sizes.most_pages(spec) == memory.max_pages
    for part in parts:
        part.block.close()
        part.block.close()
    assert memory.pages_in_use == 0


def test_what_is_split_off_knows_where_its_own_rows_parted() -> None:
    """Those of the first window a token later than those of the second."""
    rng = np.random.default_rng(0)
    first = opened(KVMemory(make_spec(SIZES)), 2, rng)
    for rows in ([0, 0, 1, 1], [1, 1, 2, 3], [0, 1, 2, 3]):
        first.feed(rng)
        first.select(np.asarray(rows), np.arange(2))
    for part in (first, first.split(1)):
        part.feed(rng)
        part.select(np.asarray([1, 0]), np.arange(1))
        part.check()


def test_room_is_what_the_pool_can_give() -> None:
    memory = KVMemory(make_spec(SIZES, mode="paged", page=4, pages=9))
    block = memory.open(3, 5)
    assert [block.room(*asked) for asked in ((4, 1), (5, 1), (4, 3), (9, 1), (13, 1), (12, 3))] == [3, 3, 3, 3, 2, 1]
    block.reserve(4)
    assert [block.room(*asked) for asked in ((4, 1), (8, 1), (8, 2), (4, 3), (8, 3), (44, 1))] == [3, 3, 2, 3, 1, 0]
    with pytest.raises(UserError, match=r"3 of 9 pages \(kv_cache.max_pages\) are in use, 30 more are needed"):
        block.reserve(44)
    assert memory.pages_in_use == 3


def test_contiguous_memory_is_there_from_the_start_and_paged_when_it_is_written() -> None:
    """By the system's own count, in bytes: sizes.py says how many."""
    spec = {"max_batch_size": 8, "max_beam_width": 4, "max_new_tokens": 444, "max_input_len": 1000}
    dimensions = tiny_dimensions()
    before = resident.now()
    contiguous = KVMemory(make_spec(dimensions, **spec))
    whole = sizes.self_kv_bytes(contiguous.spec) + sizes.cross_kv_bytes(contiguous.spec, 8, 550)
    assert resident.now() - before == pytest.approx(whole, abs=1e6)
    assert whole == 4 * 128 * 4 * (32 * 448 + 8 * 550)
    del contiguous

    before = resident.now()
    paged = KVMemory(make_spec(dimensions, mode="paged", **spec))
    assert resident.now() - before < 1e6
    block = paged.open(8, 550)
    block.select_rows(np.repeat(np.arange(8), 4), 0)
    block.reserve(256)
    for tensor in block.past:
        tensor[:, :, :256] = 1.0
    for tensor in block.cross:
        tensor[:] = 1.0
    used = 4 * 128 * 4 * (32 * 256 + 8 * 550)
    assert resident.now() - before == pytest.approx(used, abs=1e6)
    other = block.split(4, 256)
    block.close()
    assert resident.now() - before == pytest.approx(used / 2, abs=1e6)
    other.close()
    assert resident.now() - before < 1e6


def test_rows_that_move_leave_no_memory_behind() -> None:
    """With fewer beams than the engine takes, the rows that are split off move up."""
    spec = {"max_batch_size": 8, "max_beam_width": 4, "max_new_tokens": 444, "max_input_len": 1000}
    before = resident.now()
    block = KVMemory(make_spec(tiny_dimensions(), mode="paged", **spec)).open(8, 2)
    block.select_rows(np.repeat(np.arange(8), 2), 0)
    block.reserve(448)
    for tensor in block.past:
        tensor[:, :, :448] = 1.0
    used = 4 * 128 * 4 * 16 * 448
    assert resident.now() - before == pytest.approx(used, abs=1e6)
    middle = block.split(3, 448)
    last = middle.split(3, 448)
    assert resident.now() - before == pytest.approx(used, abs=1e6)
    middle.close()
    assert resident.now() - before == pytest.approx(used * 5 / 8, abs=1e6)
    assert all((tensor[:, :, :448] == 1.0).all() for part in (block, last) for tensor in part.past)


def test_pages_are_whole_pages_of_the_systems() -> None:
    """With the released models' heads of 64 and pages of 64 tokens, each page of a head is 16 KiB, on its own."""
    for page in (16, 64):
        spec = make_spec(tiny_dimensions(), mode="paged", page=page)
        assert sizes.page_tokens(spec) * 64 * 4 % 4096 == sizes.capacity(spec) * 64 * 4 % 4096 == 0
