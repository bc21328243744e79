"""What rows hold in common, and that what is copied beside it is enough, against rows that are copied whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_factory.backends.onnxruntime.branching import branched, move

PLACES, CAPACITY = 9, 24


def chosen(*sources: int) -> np.ndarray:
    return np.asarray(sources, np.int64)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_rows_are_what_they_come_from(data: st.DataObject) -> None:
    """Any rows from any, more or fewer than before, some tokens fed between; places without a row hold anything."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    tensors = list(rng.integers(0, 1000, (2, PLACES, 3, CAPACITY, 2)))
    rows, length = data.draw(st.integers(1, PLACES)), 0
    same, plain = np.zeros((rows, rows), np.int64), [tensor[:rows].copy() for tensor in tensors]
    while length < CAPACITY and data.draw(st.integers(0, 9)):
        new = data.draw(st.integers(0, min(3, CAPACITY - length)))
        for tensor, expected in zip(tensors, plain, strict=True):
            tensor[:, :, length:] = rng.integers(0, 1000, (PLACES, 3, CAPACITY - length, 2))  # beyond it is unknown
            tensor[rows:] = rng.integers(0, 1000, tensor[rows:].shape)
            expected[:, :, length : length + new] = tensor[:rows, :, length : length + new]
        length += new
        sources = chosen(*data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=PLACES)))
        begins, same = branched(same, sources, length)
        move(tensors, sources, begins, length)
        plain, rows = [expected[sources] for expected in plain], len(sources)
        for tensor, expected in zip(tensors, plain, strict=True):
            assert np.array_equal(tensor[:rows, :, :length], expected[:, :, :length])


def test_only_what_came_after_they_parted_is_copied() -> None:
    begins, same = branched(np.zeros((1, 1), np.int64), chosen(0, 0, 0), 5)
    assert begins == [5, 0, 0], "the first row is there; where the others are to be was none"
    begins, same = branched(same, chosen(1, 0, 2), 7)
    assert begins == [5, 5, 7], "two change places; they were one until the fifth token"
    begins, same = branched(same, chosen(1, 1, 1), 8)
    assert begins == [5, 8, 5]
    begins, same = branched(same, chosen(2, 1), 11)
    assert begins == [8, 11]
    assert branched(same, chosen(0, 1, 1), 12)[0] == [12, 12, 0], "what a row that was dropped held is forgotten"


def test_the_beginning_is_left_alone() -> None:
    """By writing there what no other row holds."""
    tensor = np.arange(3 * 4.0).reshape(3, 1, 4, 1).repeat(2, axis=1)
    before = tensor.copy()
    move([tensor], chosen(1, 2, 0), [1, 2, 3], 4)
    for row, (source, begin) in enumerate(((1, 1), (2, 2), (0, 3))):
        assert np.array_equal(tensor[row, :, :begin], before[row, :, :begin])
        assert np.array_equal(tensor[row, :, begin:], before[source, :, begin:])
