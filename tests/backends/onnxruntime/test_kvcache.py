"""KV memory against plain arrays, in both modes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.onnxruntime.making import make_spec
from tests.tiny_model import tiny_dimensions
from whisper_factory.backends.onnxruntime.kvcache import KVMemory

Action = tuple[str, list[int]]
SIZES = tiny_dimensions(n_text_layer=1, n_text_state=16, n_audio_state=16)  # heads of 8
actions = st.lists(st.one_of(st.just(("token", [])), st.tuples(st.just("rows"), st.lists(st.integers(0, 99), min_size=1,
                                                                                          max_size=9))), max_size=25)


@pytest.mark.parametrize("mode", ["contiguous", "paged"])
@given(todo=actions)
@settings(max_examples=60, deadline=None)
def test_rows_keep_their_past(mode: str, todo: list[Action]) -> None:
    memory = KVMemory(make_spec(SIZES, mode=mode, page=3))
    tensors, length = memory.self_kv(2), 0
    plain = np.zeros((2, 2, 2, 0, 8), np.float32)  # keys and values, rows, heads, tokens, head size
    rng = np.random.default_rng(0)
    for action, numbers in todo:
        rows = len(tensors[0])
        if action == "token":
            memory.reserve(tensors, length, length + 1)
            new = rng.standard_normal((2, rows, 2, 1, 8), dtype=np.float32)
            for tensor, part in zip(tensors, new, strict=True):
                tensor[:, :, length : length + 1] = part
            plain, length = np.concatenate([plain, new], axis=3), length + 1
        else:
            chosen = np.array(numbers) % rows
            memory.select_rows(tensors, chosen, length)
            plain = plain[:, chosen]
        assert np.array_equal(np.stack([tensor[:, :, :length] for tensor in tensors]), plain)


@pytest.mark.parametrize("mode", ["contiguous", "paged"])
@pytest.mark.parametrize("windows", [[1], [0, 2], [2, 0, 1], [0, 1, 2]])
def test_windows_are_selected(mode: str, windows: list[int]) -> None:
    memory = KVMemory(make_spec(SIZES, mode=mode))
    tensors = memory.cross_kv(3, 7)
    for tensor in tensors:
        tensor[:] = np.random.default_rng(1).standard_normal(tensor.shape)
    before = [tensor.copy() for tensor in tensors]
    moved = memory.select_windows(tensors, np.array(windows))
    assert moved == (windows != [0, 1, 2])
    for old, new in zip(before, tensors, strict=True):
        assert np.array_equal(new, old[windows])


def test_contiguous_is_allocated_whole_and_paged_is_not() -> None:
    sizes = {}
    for mode in ("contiguous", "paged"):
        memory = KVMemory(make_spec(SIZES, mode=mode, page=4))
        tensors = memory.self_kv(1)
        sizes[mode] = tensors[0].base.nbytes if tensors[0].base is not None else tensors[0].nbytes
    assert sizes == {"contiguous": 9 * 2 * 44 * 8 * 4, "paged": 1 * 2 * 4 * 8 * 4}
