"""What is declared, planned and refused, on a machine with or without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.onnxruntime_cuda.making import declared
from tests.compositions import composition
from whisper_factory import factory, memory, plan, report, schema
from whisper_factory.backends import onnxruntime_cuda
from whisper_factory.backends.onnxruntime_cuda import machine
from whisper_factory.backends.onnxruntime_cuda.machine import Gpu
from whisper_factory.engine_spec import KVCache
from whisper_factory.errors import EnvironmentFault, UserError

CARD = Gpu("NVIDIA H100", 85_000_000_000, 84_000_000_000, 13)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[Gpu | None], None]:
    def put(found: Gpu | None) -> None:
        monkeypatch.setattr(machine, "gpu", lambda: found)

    return put


def test_the_provider_is_no_part_of_a_cpu_engines_key() -> None:
    made = [plan.make(composition("model=tiny.en", *more), lambda step, key: False)
            for more in ((), ("backend.provider=cpu",), ("backend.provider=cuda",))]
    assert made[0].key == made[1].key != made[2].key
    assert made[2].spec.backend == "onnxruntime_cuda"
    assert made[0].steps[1].key == made[2].steps[1].key  # the same checkpoint


def test_a_machine_without_a_gpu_plans_and_says_where_it_will_run(card: Callable[[Gpu | None], None],
                                                                  tmp_path: Path) -> None:
    card(None)
    wanted = composition("model=tiny.en", "profile=batch", "backend.provider=cuda", "dry_run=true",
                         f"outputs={tmp_path}", f"store.path={tmp_path}")
    notes = schema.settle(wanted)
    assert notes == ["runs on an NVIDIA GPU, and there is none here; to build for another machine: stop_after=build"]
    assert factory.produce(wanted, "", notes).memory.budget is None
    wanted.dry_run = False
    with pytest.raises(EnvironmentFault, match="needs an NVIDIA GPU, and there is no driver here"):
        factory.produce(wanted, "", notes)
    assert not list(tmp_path.glob("fetch/*"))


def test_the_plan_names_the_gpu_whose_memory_it_is(card: Callable[[Gpu | None], None], tmp_path: Path) -> None:
    card(CARD)
    wanted = composition("model=tiny.en", "profile=batch", "backend.provider=cuda", "dry_run=true",
                         f"outputs={tmp_path}", f"store.path={tmp_path}")
    printed = report.plan_table(factory.produce(wanted, "", schema.settle(wanted)))
    assert "\n  NVIDIA H100: 85.00 GB, 0 MB of it reserved, " in printed


@pytest.mark.parametrize("asked", [(), ("kv_cache=contiguous",)])
def test_both_kinds_of_cache_are_to_be_had(card: Callable[[Gpu | None], None], asked: tuple[str, ...]) -> None:
    card(CARD)
    wanted = composition("profile=duplex_lowmem", "backend.provider=cuda", *asked)
    assert schema.settle(wanted) == ["runs on NVIDIA H100 (85000 MB, 84000 free), float16"]
    assert wanted.kv_cache.mode == ("contiguous" if asked else "paged")
    parts = {part.name: part.load for part in memory.estimate(wanted.engine_spec()).parts}
    assert (parts[memory.SELF_KV] > 0) == (parts[memory.CROSS_KV] > 0) == bool(asked)


def test_a_paged_caches_plan_follows_the_turn_and_the_pool() -> None:
    """In whole granules of 2 MB: base, eight windows, four beams."""
    batch = ("profile=batch", "model=base", "backend.provider=cuda", "kv_cache=paged", "profile.padding_strategy=nopad")

    def peaks(*more: str, turn: int | None = None) -> list[int]:
        spec = composition(*batch, *more).engine_spec()
        parts = memory.at_turns(spec, turn) if turn else memory.estimate(spec).parts
        found = {part.name: part.peak // (2 << 20) for part in parts}
        return [found[name] for name in (memory.SELF_KV, memory.CROSS_KV, "room to reorder sequences")]

    assert peaks() == [48, 84, 2]  # 1549 positions: just over six granules a tensor
    assert peaks("profile.padding_strategy=max") == [48, 72, 2]
    assert peaks(turn=1000) == [48, 36, 2]
    assert peaks("kv_cache.max_pages=32") == [11, 84, 2]  # eight rows
    assert peaks("profile.max_beam_width=1") == [11, 84, 0]


@pytest.mark.parametrize(("spec", "said"), [
    (declared("float32"), "has no precision 'float32' of 0 bits over float32: the GPU computes in float16"),
    (replace(declared(), kv_cache=KVCache("contiguous", 64, 3)), "max_pages=3 goes with kv_cache=paged"),
    (replace(declared(), kv_cache=KVCache("paged", 0)), "tokens_per_page=0 is not a page; choices: 1 or more"),
    (replace(declared(), kv_cache=KVCache("paged", 8, 11)), r"max_pages=11 cannot hold a sequence of each window, .* "
                                                            r"choices: 12 or more \(36 are enough for everything\)"),
    (replace(declared(), kv_cache=KVCache("pagde", 64)), "no KV cache 'pagde'; did you mean 'paged'"),  # type: ignore[arg-type]
])
def test_what_cannot_be_built_is_refused(spec: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        onnxruntime_cuda.check(spec)  # type: ignore[arg-type]


def test_a_provider_goes_with_its_backend() -> None:
    with pytest.raises(UserError, match=r"backend\.provider=cuda goes with backend=onnxruntime"):
        schema.check(composition("backend=tensorrt", "device=rtx_4090", "backend.provider=cuda"))
    with pytest.raises(UserError, match="unknown 'cud'; did you mean 'cuda'"):
        schema.check(composition("backend.provider=cud"))


@pytest.mark.parametrize(("found", "installed", "built_for", "missing", "said"), [
    (CARD, None, None, None, "needs onnxruntime-gpu, not installed here"),
    (CARD._replace(cuda=12), "1.31.1", 13, None, "is built for CUDA 13, NVIDIA H100's driver runs CUDA 12 at most"),
    (CARD, "1.31.1", 13, "libcudnn.so.9: not found", "cannot load its CUDA provider: libcudnn.so.9"),
    (CARD._replace(free=100_000_000), "1.31.1", 13, None, "needs 900 MB of NVIDIA H100, of whose 85000 MB 100 are"),
])
def test_what_this_machine_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch, card: Callable[[Gpu | None], None],
                                             found: Gpu, installed: str | None, built_for: int | None,
                                             missing: str | None, said: str) -> None:
    card(found)
    monkeypatch.setattr(machine, "runtime", lambda: installed)
    monkeypatch.setattr(machine, "built_for", lambda: built_for)
    monkeypatch.setattr(machine, "missing_library", lambda: missing)
    with pytest.raises(EnvironmentFault, match=said):
        machine.check(900_000_000, "this engine")


# Of an H100, by its driver, in MB: at load and at the highest (docs/gpu.md).
MEASURED = {
    ("tiny.en", "float16", "duplex_lowmem"): (924, 926), ("tiny.en", "int8", "duplex_lowmem"): (909, 911),
    ("tiny.en", "int4", "duplex_lowmem"): (901, 903), ("tiny.en", "float16", "interactive"): (961, 1028),
    ("tiny.en", "int8", "interactive"): (940, 1007), ("tiny.en", "int4", "interactive"): (932, 999),
    ("tiny.en", "float16", "batch"): (1452, 1452), ("tiny.en", "int8", "batch"): (1406, 1406),
    ("tiny.en", "int4", "batch"): (1395, 1398), ("base", "int8", "duplex_lowmem"): (961, 966),
    ("base", "int8", "interactive"): (1014, 1096), ("base", "int8", "batch"): (1630, 1630),
}


PAGED = {
    ("tiny.en", "float16", "duplex_lowmem"): (915, 924), ("tiny.en", "float16", "interactive"): (945, 1022),
    ("tiny.en", "float16", "batch"): (1316, 1450), ("tiny.en", "int8", "duplex_lowmem"): (901, 909),
    ("tiny.en", "int8", "interactive"): (924, 1001), ("base", "int8", "duplex_lowmem"): (947, 959),
    ("base", "int8", "interactive"): (978, 1079), ("base", "int8", "batch"): (1368, 1624),
}
CASES = [(*case, mode) for mode, measured in (("contiguous", MEASURED), ("paged", PAGED)) for case in measured]


@pytest.mark.parametrize(("model", "precision", "profile", "mode"), CASES)
def test_the_memory_plan_is_what_was_measured(model: str, precision: str, profile: str, mode: str) -> None:
    wanted = composition(f"profile={profile}", f"model={model}", f"precision={precision}", f"kv_cache={mode}",
                         "backend.provider=cuda")
    found = memory.estimate(wanted.engine_spec())
    counted = (PAGED if mode == "paged" else MEASURED)[model, precision, profile]
    for planned, measured in zip((found.load, found.peak), counted, strict=True):
        context = 552  # of CUDA
        allowed = max(32, 0.05 * (measured - context))
        assert abs(planned / 1e6 - measured) <= allowed


def test_the_memory_of_a_large_batch_is_what_was_measured() -> None:
    wanted = composition("profile=batch", "model=tiny.en", "precision=float16", "kv_cache=contiguous",
                         "backend.provider=cuda", "profile.max_batch_size=32", "profile.max_beam_width=1")
    found = memory.estimate(wanted.engine_spec())
    assert abs(found.load / 1e6 - 1683) <= 32
    assert abs(found.peak / 1e6 - 1683) <= 32
