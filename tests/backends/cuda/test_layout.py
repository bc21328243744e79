"""Which granules a paged cache takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compositions import composition
from whisper_factory.backends.cuda import layout
from whisper_factory.backends.cuda.layout import Layout, laid_out, runs
from whisper_factory.engine_spec import EngineSpec, KVCache


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 7), st.integers(5, 64), st.floats(0, 1))
def test_what_is_used_lies_in_these_granules_and_in_no_other(tensors: int, units: int, pitch: int, granule: int,
                                                             share: float) -> None:
    found = laid_out(tensors, units * pitch, granule, pitch)
    used = int(share * units * pitch)
    touched = {(tensor * found.step + byte) // granule for tensor in range(tensors) for byte in range(used)}
    assert found.behind(used) == touched
    assert found.step >= found.longest
    assert found.step % pitch == 0
    assert all(number < found.size // granule for number in found.behind(found.longest))
    assert found.size % granule == 0


def test_short_tensors_share_granules_and_long_ones_have_their_own() -> None:
    assert laid_out(8, 50, 100) == Layout(8, 50, 50, 100)
    assert len(laid_out(8, 50, 100).behind(50)) == 4
    assert laid_out(4, 150, 100).step == 200
    assert len(laid_out(4, 150, 100).behind(100)) == 4
    assert laid_out(4, 150, 100, 15).step == 210  # as near as the pitch lets


def test_neighbours_are_told_as_one() -> None:
    assert runs([7, 3, 4, 9, 8]) == [range(3, 5), range(7, 10)]
    assert runs([]) == []


def spec(*overrides: str) -> EngineSpec:
    return composition("backend.provider=cuda", "kv_cache=paged", *overrides).engine_spec()


def granules(engine: EngineSpec, rows: int, windows: int, length: int) -> tuple[int, int]:
    sizes = layout.sizes_of(engine)
    return (len(layout.self_layout(engine).behind(rows * sizes.row)),
            len(layout.cross_layout(engine).behind(windows * length * sizes.position)))


def test_where_paging_pays() -> None:
    """base in batches: a granule for each of twelve tensors holds eight rows, or a window and a half of 30 s. One
    window's short turn takes what it is rounded up to."""
    batch = spec("profile=batch", "model=base", "precision=float16")
    assert granules(batch, 8, 8, 600) == (12, 36)
    assert granules(batch, 32, 8, 1500) == (48, 72)
    assert granules(batch, 1, 1, 1500) == (12, 12)
    assert granules(spec("profile=duplex_lowmem", "model=tiny.en"), 1, 1, 475) == (1, 2)


@pytest.mark.parametrize(("pages", "rows"), [(None, 32), (0, 32), (32, 8), (39, 9), (4 * 40, 32)])
def test_a_pool_is_so_many_rows(pages: int | None, rows: int) -> None:
    """Of four pages each: 228 tokens."""
    engine = replace(spec("profile=batch", "model=base"), kv_cache=KVCache("paged", 64, pages))
    assert layout.pool_rows(engine) == rows
    assert (layout.least_pages(engine), layout.most_pages(engine)) == (32, 128)
