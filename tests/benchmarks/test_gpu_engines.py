"""An engine is made once, and another one for everything that shapes it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gpu_engines
import pytest

from whisper_factory.engine_spec import EngineSpec


def test_every_shape_has_an_engine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources/tiny.en").mkdir(parents=True)
    (tmp_path / "sources/tiny.en/vocabulary.tiktoken").touch()
    monkeypatch.setattr(gpu_engines.convert, "checkpoint", lambda source, kind, out, *rest: out.mkdir(exist_ok=True))
    built: list[EngineSpec] = []

    def build(source: Path, spec: EngineSpec, out: Path, *rest: object) -> None:
        spec.save(out)
        built.append(spec)

    monkeypatch.setattr(gpu_engines.backends, "get", lambda name: SimpleNamespace(build=build))
    shapes = [{}, {"max_input_len": 750, "margin_frames": 100}, {"padding_strategy": "nopad"}]
    specs = [gpu_engines.declared("tiny.en", "int8", gpu_engines.profile("batch", **shape), "cuda", mode)
             for shape in shapes for mode in ("contiguous", "paged")]
    for _ in range(2):
        assert [EngineSpec.load(gpu_engines.built(tmp_path, tmp_path, spec)) for spec in specs] == specs
    assert built == specs
