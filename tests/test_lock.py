"""recipe.lock: written, held against, verified; on a recipe of the test's own with random weights, and on real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Command
from tests.forks import Forks
from whisper_factory import lock_file, locked_outputs, recipes
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.lock import Lock

MINE = "# @package _global_\ndefaults:\n  - override /model: debug\n  - override /validation: none\n  - _self_\n"


@pytest.fixture(scope="module")
def written(forks: Forks, shared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with recipes/mine.yaml, its lock, and what it makes."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "mine.yaml").write_text(MINE)
    done = forks.run("whisper_factory", f"store.path={shared_store}", "recipe=mine", "lock=write", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def locked(written: Path, tmp_path: Path) -> Path:
    """The lock in a copy of that directory, the working one."""
    shutil.copytree(written, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "recipes" / "mine.lock"


def change(path: Path, edit: Callable[[Any], None]) -> None:
    content = yaml.safe_load(path.read_text())
    edit(content)
    lock_file.write(path, content)


def test_a_lock_says_inputs_composition_tools_and_outputs(locked: Path) -> None:
    content = lock_file.read(locked)
    assert content["composition"]["model"]["name"] == "debug"
    assert "outputs" not in content["composition"]
    assert content["inputs"]["weights/random.json"]["from"] == ["random numbers from seed 0"]
    vocabulary = content["inputs"]["vocabulary.tiktoken"]
    assert vocabulary["from"][0].startswith("https://")
    assert vocabulary["bytes"] == 835554
    assert set(content["tools"]) >= {"numpy", "onnx"}
    assert "checkpoint/model.safetensors" in content["outputs"]["exact"]
    assert "engine/encoder.onnx" in content["outputs"]["exact"]
    anchor = content["outputs"]["computed"]["engine/end_anchor.bin"]
    assert len(anchor["sample"]) == locked_outputs.SAMPLES
    assert anchor["bytes"] == 4 * 50 * 128


def test_the_same_recipe_passes_and_writes_the_same_lock(locked: Path, factory: Command) -> None:
    before = locked.read_bytes()
    done = factory("recipe=mine")
    assert done.returncode == 0
    assert "warning" not in done.stderr
    assert factory("recipe=mine", "lock=write").returncode == 0
    assert locked.read_bytes() == before


def test_another_composition_is_refused_and_the_line_is_named(locked: Path, factory: Command, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "outputs")
    done = factory("recipe=mine", "precision=int4")
    assert done.returncode == 2
    number = 1 + locked.read_text().splitlines().index("    name: int8")
    assert f"line {number} says composition.precision.name: int8, now it is int4" in done.stderr
    assert "lock=off" in done.stderr
    assert not (tmp_path / "outputs").exists()
    assert factory("recipe=mine", "precision=int4", "lock=off").returncode == 0


def test_other_inputs_are_refused(locked: Path, factory: Command) -> None:
    change(locked, lambda content: content["inputs"]["weights/random.json"].update(sha256=["0" * 64]))
    done = factory("recipe=mine")
    assert done.returncode == 2
    assert "says inputs.weights/random.json.sha256: ['000000" in done.stderr


def test_another_tool_version_only_warns(locked: Path, factory: Command) -> None:
    change(locked, lambda content: content["tools"].update(onnx="0.0.1"))
    done = factory("recipe=mine")
    assert done.returncode == 0
    assert "warning: mine.lock: made with onnx 0.0.1, here it is " in done.stderr


def test_other_outputs_warn_and_fail_verification(locked: Path, factory: Command) -> None:
    change(locked, lambda content: content["outputs"]["exact"]["engine/encoder.onnx"].update(sha256="0" * 64))
    done = factory("recipe=mine")
    assert done.returncode == 0
    assert "warning: mine.lock: engine/encoder.onnx differs" in done.stderr
    done = factory("recipe=mine", "verify=true")
    assert done.returncode == 3
    assert "could not be made again" in done.stderr
    assert "engine/encoder.onnx differs" in done.stderr


def test_computed_files_may_be_another_machines_within_a_thousandth(locked: Path, factory: Command) -> None:
    def nudge(by: float) -> Callable[[Any], None]:
        def edit(content: Any) -> None:
            about = content["outputs"]["computed"]["engine/end_anchor.bin"]
            about.update(sha256="0" * 64, sample=[value + by for value in about["sample"]])
        return edit

    change(locked, nudge(0.0005))
    done = factory("recipe=mine", "verify=true")
    assert done.returncode == 0, done.stderr
    assert "files as " in done.stderr
    change(locked, nudge(0.01))
    done = factory("recipe=mine", "verify=true")
    assert done.returncode == 3
    assert "engine/end_anchor.bin differs by more than 0.001" in done.stderr


def test_verification_leaves_nothing_behind(locked: Path, factory: Command, shared_store: Path) -> None:
    assert factory("recipe=mine").returncode == 0  # so that this directory is among those that need what is there
    before = sorted(path for path in shared_store.rglob("*") if path.suffix != ".lock")
    assert factory("recipe=mine", "verify=true").returncode == 0
    assert sorted(path for path in shared_store.rglob("*") if path.suffix != ".lock") == before


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["lock=write"], "go with a recipe; choices: recipe="),
        (["recipe=mine", "lock=maybe"], "lock: unknown 'maybe'; choices: check, write, inputs, off"),
        (["recipe=unlocked", "lock=check"], "has no lock"),
        (["recipe=unlocked", "verify=true"], "has no lock"),
        (["recipe=mine", "verify=true", "dry_run=true"], "verify=true makes the engine once more; leave dry_run"),
        (["recipe=mine", "verify=true", "lock=inputs"], "verify=true makes the engine once more; leave dry_run"),
        (["recipe=mine", "lock=write", "dry_run=true"], "lock=write makes the whole engine"),
        (["recipe=mine", "lock=write", "precision=int4"], "lock=write locks a recipe as its file says"),
    ],
)
def test_mistakes_are_one_line(locked: Path, factory: Command, overrides: list[str], says: str) -> None:
    locked.with_name("unlocked.yaml").write_text(MINE)
    before = locked.read_bytes()
    done = factory(*overrides)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("error: ") == 1
    assert locked.read_bytes() == before


def test_a_damaged_lock_is_one_line(tmp_path: Path) -> None:
    for text in ("[", "a: 1\n", ""):
        (tmp_path / "x.lock").write_text(text)
        with pytest.raises(UserError, match=r"x\.lock"):
            lock_file.read(tmp_path / "x.lock")


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.update(outputs={}),
        lambda content: content.update(outputs=None),
        lambda content: content.update(inputs=None),
        lambda content: content.update(composition=[1]),
        lambda content: content["outputs"].pop("exact"),
        lambda content: content["outputs"]["computed"]["engine/end_anchor.bin"].pop("sample"),
        lambda content: content["outputs"]["computed"]["engine/end_anchor.bin"].update(sample=[None]),
    ],
)
def test_half_a_lock_is_none(tmp_path: Path, edit: Callable[[Any], Any]) -> None:
    shutil.copy(recipes.project_directory() / "quickstart.lock", tmp_path / "x.lock")
    lock_file.read(tmp_path / "x.lock")
    change(tmp_path / "x.lock", edit)
    with pytest.raises(UserError, match=r"x\.lock is not a lock, or not a whole one; lock=off"):
        lock_file.read(tmp_path / "x.lock")


def test_what_a_lock_does_not_say_and_what_is_no_more(locked: Path, factory: Command) -> None:
    def edit(content: Any) -> None:
        profile = content["composition"]["profile"]
        del profile["max_batch_size"]
        profile.update(max_input_len="1500", max_output_len=7)

    change(locked, edit)
    done = factory("recipe=mine")
    assert done.returncode == 2
    number = 1 + locked.read_text().splitlines().index("    max_output_len: 7")
    assert "it does not say composition.profile.max_batch_size, now it is 1; " in done.stderr
    assert " says composition.profile.max_input_len: '1500', now it is 1500; " in done.stderr
    assert f"line {number} says composition.profile.max_output_len: 7, now there is none; " in done.stderr


def test_a_locked_file_that_is_not_made_any_more(locked: Path, factory: Command) -> None:
    change(locked, lambda content: content["outputs"]["exact"].update({"engine/more": {"bytes": 1, "sha256": "0"}}))
    done = factory("recipe=mine", "verify=true")
    assert done.returncode == 3
    assert "engine/more is in the lock and was not made" in done.stderr
    for last in ("convert", "fetch"):  # nor are other tools than in the lock a run's that stops early
        done = factory("recipe=mine", f"stop_after={last}")
        assert done.returncode == 0
        assert "warning" not in done.stderr


def test_a_recipe_directory_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # as on a read-only mount, root or not
    keeper = Lock("mine", tmp_path / "mine.lock", "write", {})
    with pytest.raises(EnvironmentFault, match=r"mine\.lock; copy the recipe into recipes/ of a directory"):
        keeper.before(None)  # type: ignore[arg-type]


def test_inputs_alone_are_locked_without_making_anything(factory: Command, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(MINE.replace("debug", "small.en"))
    done = factory("recipe=mine", "lock=inputs")
    assert done.returncode == 0, done.stderr
    content = lock_file.read(tmp_path / "recipes" / "mine.lock")
    assert content["outputs"].startswith("unproven")
    assert content["inputs"]["weights/small.en.pt"]["bytes"] == "not seen yet"
    assert not (tmp_path / "outputs").exists()
    assert factory("recipe=mine", "dry_run=true").returncode == 0


def test_quickstart_can_be_made_again_as_its_lock_says(factory: Command) -> None:
    """The committed lock, real weights: every promised file anew, in a store of its own."""
    done = factory("recipe=quickstart", "verify=true", "stop_after=build")
    assert done.returncode == 0, done.stderr
    assert f"verify    11 files as {recipes.project_directory() / 'quickstart.lock'} says" in done.stderr


@pytest.mark.parametrize(
    "environment", [{"PYTHONHASHSEED": "1", "LC_ALL": "C"}, {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}]
)
def test_bytes_do_not_depend_on_the_process(
    locked: Path, python: Command, tmp_path: Path, environment: dict[str, str]
) -> None:
    elsewhere = tmp_path / "else where"
    shutil.copytree(tmp_path / "recipes", elsewhere / "recipes")
    done = python("whisper_factory", "recipe=mine", "store.path=store", cwd=elsewhere, **environment)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert (elsewhere / "recipes" / "mine.lock").read_bytes() == locked.read_bytes()
