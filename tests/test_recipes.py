"""Committed recipes: their form, what they compose, and each made end to end with a model that takes seconds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.compositions import composition
from tests.conftest import Command
from whisper_factory import plan, recipes
from whisper_factory.lock_file import read

COMMITTED = recipes.project_directory()
NAMES = sorted(path.stem for path in COMMITTED.glob("*.yaml"))


def test_the_committed_recipes() -> None:
    assert NAMES == ["base_duplex", "base_en_duplex", "batch_transcription", "interactive_cli",
                     "jetson_orin_nano_duplex", "quickstart", "small_en_example"]
    assert set(recipes.found()) == set(NAMES)
    assert sorted(path.stem for path in COMMITTED.glob("*.lock")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_short_and_begins_with_its_command(name: str) -> None:
    lines = (COMMITTED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 20
    assert lines[0] == recipes.HEADER
    assert lines[1] == f"# python -m whisper_factory recipe={name}"


@pytest.mark.parametrize(
    ("name", "engine", "shape"),
    [
        ("quickstart", "tiny.en-int8-duplex_lowmem-paged-onnxruntime", (1, 1, 750)),
        ("base_duplex", "base-int8-duplex_lowmem-paged-onnxruntime", (1, 1, 750)),
        ("small_en_example", "small.en-int8-batch-contiguous-onnxruntime", (8, 4, 3000)),
        ("base_en_duplex", "base.en-int8-duplex_lowmem-paged-onnxruntime", (1, 1, 750)),
        ("interactive_cli", "small.en-int8-interactive-contiguous-onnxruntime", (1, 1, 1500)),
        ("batch_transcription", "small-int8-batch-contiguous-onnxruntime", (8, 4, 3000)),
        ("jetson_orin_nano_duplex", "base.en-int8-duplex_lowmem-paged-tensorrt_llm", (1, 1, 750)),
    ],
)
def test_what_a_recipe_composes(name: str, engine: str, shape: tuple[int, int, int]) -> None:
    made = composition(f"recipe={name}")
    assert made.name == engine
    assert (made.profile.max_batch_size, made.profile.max_beam_width, made.profile.max_input_len) == shape
    assert composition(f"recipe={name}", "model=tiny.en").model.name == "tiny.en"  # the command line wins


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_plans_as_its_lock_says(name: str, factory: Command, tmp_path: Path) -> None:
    done = factory(f"recipe={name}", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "warning: " not in done.stderr or "made with" in done.stderr  # other tools may be installed
    locked = read(COMMITTED / f"{name}.lock")
    assert f"({locked['key'][:12]})" in done.stdout
    assert list(tmp_path.iterdir()) == []
    unproven = isinstance(locked["outputs"], str)
    assert unproven == (name not in ("quickstart", "base_duplex"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_end_to_end(
    name: str, factory: Command, tmp_path: Path, one_clip: tuple[str, ...]
) -> None:
    done = factory(f"recipe={name}", "model=debug", "weights=auto", "lock=off", *one_clip)
    assert done.returncode == 0, done.stderr
    directory = next((tmp_path / "outputs").glob("debug-*/*"))
    report = json.loads((directory / "validation.json").read_text())
    assert report["passed"] is True
    assert report["clips"][0]["heard"] == "This engine was built from random weights."
    assert report["evidence"] == ("preflight" if name.startswith("jetson") else "engine")
    assert (directory / "kit.tar").is_file() == name.startswith("jetson")


def test_an_unknown_recipe_is_one_line_with_the_nearest(factory: Command) -> None:
    done = factory("recipe=quickstrt")
    assert done.returncode == 2
    assert "unknown recipe 'quickstrt'; did you mean 'quickstart'? choices: base_duplex, " in done.stderr


def test_a_users_own_recipe(factory: Command, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: debug\n  - _self_\nprofile:\n  max_new_tokens: 32\n")
    (tmp_path / "recipes" / "soup.yaml").write_text("onions: [1, 2")  # somebody else's
    done = factory("recipe=mine", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("debug-int8-interactive")
    (tmp_path / "recipes" / "mine.yaml").write_text("# @package _global_\nmodel: [")
    done = factory("recipe=mine", "dry_run=true")
    assert done.returncode == 2
    assert re.fullmatch(r"error: recipe '.*mine.yaml' cannot be read: .*\n", done.stderr)


def test_every_step_of_the_jetson_recipe_is_planned_for_its_device() -> None:
    made = composition("recipe=jetson_orin_nano_duplex", "model=debug", "weights=auto")
    made.kv_cache.mode = "contiguous"
    steps = plan.make(made, lambda step, key: False).steps
    assert [step.name for step in steps] == ["fetch", "convert", "pack", "kit", "reference", "validate"]
    assert made.device.reserved_mb == 4000


OWN = "# @package _global_\ndefaults:\n  - override /model: debug\n  - _self_\n"


UNUSABLE = [
    (OWN + "outputs: there\nlock: write\n", "sets outputs, lock, which the command line says"),
    (OWN + "nonsense: 1\n", "recipe/mine: unknown setting 'nonsense'; choices: backend, calibration, device"),
    (OWN + "profile: {max_input_lne: 1}\n", "unknown setting 'profile.max_input_lne'; did you mean 'profile.max"),
    (OWN.replace("defaults", "default"), "recipe/mine: unknown setting 'default'; choices: "),
    (OWN.replace("/model", "/modle"), "recipe/mine: unknown setting 'modle'; did you mean 'model'?"),
    ("# @package _global_\n- a\n- b\n", "is not a mapping of settings"),
    (OWN.partition("\n")[2], "'recipes/mine.yaml' is no recipe; its first line must be '# @package _global_'"),
]


@pytest.mark.parametrize(("content", "says"), UNUSABLE)
def test_a_recipe_that_cannot_be_used_says_why(factory: Command, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(content)
    done = factory("recipe=mine", "dry_run=true")
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_recipes_that_cannot_be_used_are_nobody_elses_trouble(factory: Command, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for number, (content, _) in enumerate(UNUSABLE):
        (tmp_path / "recipes" / f"mine{number}.yaml").write_text(content)
    assert factory("model=debug", "dry_run=true").returncode == 0


def test_recipes_of_other_editors(factory: Command, tmp_path: Path) -> None:
    (tmp_path / "recipes" / "folder.yaml").mkdir(parents=True)
    (tmp_path / "recipes" / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + OWN.replace("\n", "\r\n").encode())
    for name in ("mine", "mine.yaml"):
        done = factory(f"recipe={name}", "dry_run=true")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("debug-")
    done = factory("recipe=[mine,quickstart]", "model=debug", "weights=auto", "dry_run=true")
    assert done.returncode == 2
    assert "one recipe at a time" in done.stderr


def test_a_recipe_can_say_what_every_composition_has(factory: Command, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(OWN + "trtllm_version: 0.15.0\n")
    done = factory("recipe=mine", "--cfg", "job")
    assert "trtllm_version: 0.15.0" in done.stdout, done.stderr
    assert "trtllm_version: 0.14.0" in factory("recipe=mine", "trtllm_version=0.14.0", "--cfg", "job").stdout
