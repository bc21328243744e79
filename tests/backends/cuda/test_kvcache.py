"""Where rows and windows lie, and that they come out where they are wanted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.tensorrt.making import declared
from whisper_factory.backends.cuda.device import Host, Tensor
from whisper_factory.backends.tensorrt.kvcache import AppendedCaches


def array(host: Host, tensor: Tensor) -> np.ndarray:
    found = np.empty(tensor.shape, tensor.dtype)
    host.download(tensor.address, found)
    return found


def fill(host: Host, tensors: dict[str, Tensor], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    filled = {name: rng.standard_normal(tensor.shape).astype(tensor.dtype) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        host.upload(tensor.address, filled[name])
    return filled


def test_tokens_are_appended_and_rows_follow_their_beams() -> None:
    host, spec = Host(), declared()
    caches = AppendedCaches(spec, host)
    expected = {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in caches.past(2).items()}
    for count, past in ((3, 0), (1, 3)):
        new = fill(host, caches.new(2, count), past)
        caches.append(2, count, past)
        for name, tensor in new.items():
            expected[name.replace("new", "past")][:, :, past:past + count] = tensor
    assert all(np.array_equal(array(host, tensor), expected[name]) for name, tensor in caches.past(2).items())
    for sources in ([0, 0, 0, 1, 1, 1], [1, 0, 2, 5, 3, 4], [3, 3, 0]):
        caches.select_rows(sources, 4)
        for name, tensor in caches.past(len(sources)).items():
            before, expected[name] = expected[name], expected[name][sources]
            assert np.array_equal(array(host, tensor)[:, :, :4], expected[name][:, :, :4])
            assert before.shape[2] == spec.max_tokens


@pytest.mark.parametrize("length", [425, 475])
def test_windows_move_whatever_their_length(length: int) -> None:
    host = Host()
    caches = AppendedCaches(declared(), host)
    before = fill(host, caches.cross(2, length), length)
    for sources in ([1, 0], [1]):
        caches.select_windows(sources, length)
        before = {name: tensor[sources] for name, tensor in before.items()}
        found = caches.cross(len(sources), length)
        assert all(np.array_equal(array(host, tensor), before[name]) for name, tensor in found.items())


def test_addresses_stay_as_rows_come_and_go() -> None:
    caches = AppendedCaches(declared(), Host())
    for name, tensor in caches.past(6).items():
        assert caches.past(1)[name].address == tensor.address
    for name, tensor in caches.cross(2, 475).items():
        assert caches.cross(1, 425)[name].address == tensor.address
