from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.compositions import composition
from whisper_factory import memory, remedies, schema
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.memory import MB


def spec(*overrides: str) -> EngineSpec:
    made = composition(*overrides)
    schema.settle(made)
    return made.engine_spec()


BATCH = ("profile=batch", "model=small.en", "precision=float32", "kv_cache=contiguous")


def test_what_fits_is_let_through() -> None:
    engine = spec("model=tiny.en")
    remedies.refuse_what_does_not_fit(engine, memory.estimate(engine, 8 * memory.GB), "orin")
    remedies.refuse_what_does_not_fit(engine, memory.estimate(engine, None), "unknown")


def test_a_refusal_names_both_sides_and_what_would_fit() -> None:
    engine = spec(*BATCH)
    with pytest.raises(UserError) as caught:
        remedies.refuse_what_does_not_fit(engine, memory.estimate(engine, 8 * memory.GB, 6500 * MB), "orin")
    said = str(caught.value)
    assert re.match(r"small\.en needs \d\.\d\d GB at its peak, device orin has 1\.50 GB for it \(8\.00 GB less "
                    r"device\.reserved_mb=6500\); what makes it fit: ", said)
    assert said.count(" saves ") == 3


def test_a_remedy_fits_and_one_step_less_does_not() -> None:
    engine, seen = spec(*BATCH), 0
    for room in range(600 * MB, memory.estimate(engine).peak, 200 * MB):
        for advice in remedies.changes_that_fit(engine, room, most=99):
            found = re.fullmatch(r"profile\.(max_batch_size|max_beam_width) \d+ -> (\d+) saves .*", advice)
            if not found:
                continue
            name, size = found[1], int(found[2])
            peaks = [memory.estimate(replace(engine, profile=replace(engine.profile, **{name: tried}))).peak
                     for tried in (size, 2 * size)]
            assert peaks[0] <= room < peaks[1], advice
            seen += 1
    assert seen > 3


def test_the_saving_is_computed() -> None:
    engine = spec(*BATCH)
    before = memory.estimate(engine).peak
    one = replace(engine, profile=replace(engine.profile, max_batch_size=4))
    after = memory.estimate(one).peak
    advice = remedies.changes_that_fit(engine, after, most=10)
    assert f"profile.max_batch_size 8 -> 4 saves {memory.size(before - after)}" in advice


def test_paging_is_judged_by_turns_of_ten_seconds_and_offered_first() -> None:
    engine = spec(*BATCH)
    room = memory.estimate(replace(engine, kv_cache=replace(engine.kv_cache, mode="paged")), turn_frames=1000).peak
    first = remedies.changes_that_fit(engine, room)[0]
    assert re.fullmatch(r"kv_cache contiguous -> paged saves \d+(\.\d+)? [MG]B at 10 s turns", first)


def test_pairs_where_one_change_is_not_enough_and_a_word_where_none_are() -> None:
    engine = spec(*BATCH)
    singles = [remedies._peak(engine, axis[-1]) for axis in map(list, remedies._axes(engine)) if axis]
    found = remedies.changes_that_fit(engine, min(singles) - 1 * MB)
    assert found
    assert all(" with " in advice for advice in found)
    with pytest.raises(UserError, match="choose a smaller model, or reserve less"):
        remedies.refuse_what_does_not_fit(engine, memory.estimate(engine, 100 * MB), "orin")


def test_what_a_backend_cannot_do_is_not_offered() -> None:
    engine = spec("backend=tensorrt_llm", "device=jetson_orin_nano_8gb", *BATCH[:2])
    assert not any("paged" in advice for advice in remedies.changes_that_fit(engine, 10**12, most=99))
