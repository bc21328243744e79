"""KV caches whose new tokens a step leaves beside them: TensorRT writes into no tensor that it reads."""

from __future__ import annotations

from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.cuda.kvcache import KVCaches
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec


class AppendedCaches(KVCaches):
    """Memory of both caches of an engine, and of one step's new keys and values."""

    def __init__(self, spec: EngineSpec, device: Device) -> None:
        super().__init__(spec, device)
        new = min(LONGEST_PROMPT, self.capacity)
        self._new = device.allocate(self._tensors * self._rows * self._heads * new * self._token)

    def new(self, rows: int, count: int) -> dict[str, Tensor]:
        """Where a step leaves those of `count` new tokens."""
        shape = (rows, self._heads, count, self._size)
        return self._named("new", self._new, rows * self._heads * count * self._token, shape)

    def append(self, rows: int, count: int, length: int) -> None:
        """Put the new tokens behind the `length` that each row has."""
        width, heads = count * self._token, rows * self._heads
        self._device.copy(self._past + length * self._token, self._new, (width, heads, self._tensors),
                          (self.capacity * self._token, self._rows * self._heads), (width, heads))
