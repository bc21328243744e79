from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.compositions import composition
from whisper_factory import memory, remedies, schema
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.memory import GB, MB


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
    paged = spec(*BATCH[:3], "kv_cache=paged")
    room = sum(part.peak for part in memory.at_turns(paged))
    first = remedies.changes_that_fit(engine, room)[0]
    assert re.fullmatch(r"kv_cache contiguous -> paged saves \d+(\.\d+)? [MG]B at 10 s turns", first)
    shorter = remedies.changes_that_fit(engine, room - 1)[0]
    assert re.fullmatch(r"kv_cache contiguous -> paged \(profile\.padding_strategy=nopad\) saves .* at 10 s turns",
                        shorter)
    lines = memory.table(memory.estimate(paged, room + GB, GB), "orin")
    assert lines[-1] == ("orin: only turns of up to 10 s fit, 0 MB left at their peak; longer audio takes more than "
                         "there is")


@pytest.mark.parametrize("first", [BATCH, (*BATCH[:3], "kv_cache=paged"), ("profile=batch", "model=large-v3")],
                         ids=["contiguous", "paged", "large"])
def test_every_remedy_is_enough_when_it_is_typed(first: tuple[str, ...]) -> None:
    whole, tried = memory.estimate(spec(*first)).judged, set()
    for room in range(whole // 5, whole, whole // 5):
        for advice in remedies.changes_that_fit(spec(*first), room, most=99):
            typed = [f"{key}={value}" for key, value in re.findall(r"(\S+) \S+ -> (\S+)", advice)]
            typed += re.findall(r"\((\S+)\)", advice)
            changed = spec(*first, *typed)
            remedies.refuse_what_does_not_fit(changed, memory.estimate(changed, room), "orin")
            tried.update(override.partition("=")[0] for override in typed)
    assert {"profile.max_batch_size", "profile.max_input_len", "precision"} <= tried
    assert tried & {"kv_cache", "profile.padding_strategy"}


def test_pairs_where_one_change_is_not_enough_and_a_word_where_none_are() -> None:
    engine = spec(*BATCH)
    singles = [remedies._after(engine, axis[-1]).judged for axis in map(list, remedies._axes(engine)) if axis]
    found = remedies.changes_that_fit(engine, min(singles) - 1 * MB)
    assert found
    assert all(" with " in advice for advice in found)
    with pytest.raises(UserError, match="choose a smaller model, or reserve less"):
        remedies.refuse_what_does_not_fit(engine, memory.estimate(engine, 100 * MB), "orin")


def test_what_a_backend_cannot_do_is_not_offered() -> None:
    engine = spec("backend=tensorrt_llm", "device=jetson_orin_nano_8gb", *BATCH[:2])
    assert not any("paged" in advice for advice in remedies.changes_that_fit(engine, 10**12, most=99))
