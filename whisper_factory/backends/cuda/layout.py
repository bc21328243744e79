"""Where a paged KV cache lies in addresses that are kept for it, and which granules of memory are behind it. Pure
arithmetic.

CUDA gives memory to addresses in granules, of 2 MB on an H100. A tensor is [rows, heads, tokens, head size], so its
first rows, or windows, lie together at its beginning, and that much of every tensor needs memory. A row is far smaller
than a granule (175 KB of tiny.en's, 233 of base's), so it has memory for its longest from the first token on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from whisper_factory.engine_spec import EngineSpec

GRANULE = 2 << 20  # bytes, for a plan; a loaded engine asks the GPU


class Layout(NamedTuple):
    """Tensors at equal distances, from an address that begins a granule."""

    tensors: int
    step: int  # bytes from the beginning of one to that of the next
    longest: int  # bytes of a tensor
    granule: int

    @property
    def size(self) -> int:
        """Bytes of addresses, in whole granules."""
        return -(-((self.tensors - 1) * self.step + self.longest) // self.granule) * self.granule

    def behind(self, used: int) -> frozenset[int]:
        """Numbers of the granules that hold the first `used` bytes of every tensor."""
        return _behind(self, used)


@lru_cache(1024)
def _behind(layout: Layout, used: int) -> frozenset[int]:
    if not used:
        return frozenset()
    starts = [tensor * layout.step for tensor in range(layout.tensors)]
    return frozenset(number for start in starts
                     for number in range(start // layout.granule, (start + used - 1) // layout.granule + 1))


def laid_out(tensors: int, longest: int, granule: int, pitch: int = 1) -> Layout:
    """Tensors of up to `longest` bytes: side by side where they are shorter than a granule, so that few granules hold
    all of them; else each from a granule of its own on, so that a part of each takes as few as it can.

    Args:
        pitch: what the distance has to be a multiple of, as `longest` is.
    """
    whole = -(-longest // granule) * granule
    return Layout(tensors, longest if longest < granule else -(-whole // pitch) * pitch, longest, granule)


class Sizes(NamedTuple):
    """Bytes of one of a cache's tensors."""

    head: int  # of a row, of one head, at its longest
    row: int
    position: int  # of a window, one encoder position
    tensors: int


def sizes_of(spec: EngineSpec) -> Sizes:
    """Of an engine's caches."""
    sizes, number = spec.dimensions, 2 if spec.precision.dtype == "float16" else 4
    head = spec.max_tokens * sizes.head_size * number
    return Sizes(head, sizes.n_text_head * head, sizes.n_text_head * sizes.head_size * number, 2 * sizes.n_text_layer)


def self_layout(spec: EngineSpec, granule: int = GRANULE) -> Layout:
    """Of self-attention's cache, for all rows that there may be at once."""
    sizes = sizes_of(spec)
    return laid_out(sizes.tensors, pool_rows(spec) * sizes.row, granule, sizes.head)


def cross_layout(spec: EngineSpec, granule: int = GRANULE) -> Layout:
    """Of cross-attention's."""
    sizes = sizes_of(spec)
    return laid_out(sizes.tensors, spec.profile.max_batch_size * spec.max_cross_len * sizes.position, granule)


def row_pages(spec: EngineSpec) -> int:
    """Pages of a row: those of its longest, as it has memory for that from the first token on."""
    return -(-spec.max_tokens // spec.kv_cache.tokens_per_page)


def pool_rows(spec: EngineSpec) -> int:
    """Rows that there may be at once: as many as kv_cache.max_pages has pages for, or all."""
    pages = spec.kv_cache.max_pages
    return min(spec.max_rows, pages // row_pages(spec)) if pages else spec.max_rows


def least_pages(spec: EngineSpec) -> int:
    """Pages without which a batch cannot begin, or a window not have its beams."""
    return max(spec.profile.max_batch_size, spec.profile.max_beam_width) * row_pages(spec)


def most_pages(spec: EngineSpec) -> int:
    """Pages of all rows."""
    return spec.max_rows * row_pages(spec)


def runs(numbers: Iterable[int]) -> list[range]:
    """Numbers as ranges of neighbours."""
    found: list[range] = []
    for number in sorted(numbers):
        if found and found[-1].stop == number:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found
