"""The command line end to end: real tiny.en weights from the package, the bundled clips, the embedded backend."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import Command
from whisper_factory import digest

TINY = ("profile=duplex_lowmem", "model=tiny.en")
NAME = "tiny.en-int8-duplex_lowmem-paged-onnxruntime"


@pytest.fixture(scope="module")
def built(python: Command, shared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The README's first command: the engine directory, and what the command printed."""
    folder = tmp_path_factory.mktemp("built")
    done = python("whisper_factory", f"store.path={shared_store}", *TINY, cwd=folder)
    assert done.returncode == 0, done.stderr
    directories = list((folder / "outputs" / NAME).iterdir())
    assert len(directories) == 1
    return directories[0], done.stdout


def test_ends_with_transcript_wer_latency_size_and_directory(built: tuple[Path, str]) -> None:
    directory, printed = built
    for label in ("sample ", "WER ", "latency ", "memory ", "engine ", f"outputs/{NAME}/{directory.name}"):
        assert label in printed
    assert directory.name == json.loads((directory / "plan.json").read_text())["key"][:12]


def test_the_directory_holds_the_engine_and_its_papers(built: tuple[Path, str]) -> None:
    directory, _ = built
    names = {path.name for path in directory.iterdir()}
    assert names == {"config.yaml", "plan.json", "checkpoint", "engine", "validation.json", "manifest.json", "log.txt"}
    manifest = json.loads((directory / "manifest.json").read_text())
    for name, about in manifest["outputs"].items():
        assert digest.of_file(directory / name) == about["sha256"], name
        assert (directory / name).stat().st_size == about["bytes"]
    on_disk = {path.relative_to(directory).as_posix() for place in ("checkpoint", "engine")
               for path in (directory / place).rglob("*") if path.is_file()}
    assert on_disk | {"validation.json"} == set(manifest["outputs"])
    assert set(manifest["steps"]) == {"fetch", "convert", "build", "reference", "validate"}
    assert all(step["seconds"] > 0 for step in manifest["steps"].values())
    assert yaml.safe_load((directory / "config.yaml").read_text())["model"]["name"] == "tiny.en"


def test_validation_passed_on_ten_clips_or_more(built: tuple[Path, str]) -> None:
    report = json.loads((built[0] / "validation.json").read_text())
    assert report["passed"] is True
    assert report["evidence"] == "engine"
    assert report["summary"]["clips"] >= 10
    assert report["summary"]["runaways"] == 0
    assert report["summary"]["edge_clips"] > 0
    assert report["summary"]["wer"] < 25
    assert {gate["name"] for gate in report["gates"]} == {"token_agreement", "edge_token_agreement", "runaways"}


def taken(python: Command, *command: str, cwd: Path) -> float:
    """Seconds of a command that succeeds."""
    started = time.monotonic()
    done = python(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


@pytest.mark.alone
def test_second_run_changes_nothing_and_takes_under_a_second(
    python: Command, shared_store: Path, tmp_path: Path, one_clip: tuple[str, ...]
) -> None:
    command = ("whisper_factory", f"store.path={shared_store}", *TINY, *one_clip)
    done = python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("*")}
    seconds, planning = [9.9], [0.0]
    while len(seconds) < 20 and min(seconds) >= max(1.0, 1.25 * min(planning[1:], default=0)):
        seconds.append(taken(python, *command, cwd=tmp_path))  # the quickest counts: the machine may be busy
        planning.append(taken(python, *command, "dry_run=true", cwd=tmp_path))
    again = python(*command, cwd=tmp_path)
    assert again.stderr.count("didn't change") == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("*")} == before
    assert min(seconds) < max(1.0, 1.25 * min(planning[1:])), "nor longer than planning, where that is slow"


def test_dry_run_prints_the_plan_and_does_nothing(built: tuple[Path, str], factory: Command, tmp_path: Path) -> None:
    done = factory(*TINY, "dry_run=true")
    assert done.returncode == 0, done.stderr
    for step in ("fetch", "convert", "build", "reference", "validate"):
        assert step in done.stdout
    assert done.stdout.count("cached") == 5
    other = factory(*TINY, "precision=int4", "dry_run=true")
    assert other.stdout.count("to do") == 3  # convert, build, validate
    assert list(tmp_path.iterdir()) == []


def test_dry_run_imports_neither_torch_nor_onnxruntime(python: Command, shared_store: Path, tmp_path: Path) -> None:
    code = ("import sys; sys.argv[1:] = ['dry_run=true', 'model=tiny.en']; import runpy\n"
            "runpy.run_module('whisper_factory', run_name='__main__')\n"
            "heavy = {'torch', 'onnxruntime', 'onnx', 'numpy', 'soundfile', 'tiktoken', 'rich'} & set(sys.modules)\n"
            "sys.exit(f'imported {heavy}' if heavy else 0)")
    (tmp_path / "probe.py").write_text(code)
    done = python("probe", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_quiet_prints_one_line_the_directory(built: tuple[Path, str], factory: Command, tmp_path: Path) -> None:
    done = factory(*TINY, "quiet=true")
    assert done.returncode == 0
    assert done.stdout == f"outputs/{NAME}/{built[0].name}\n"
    assert done.stderr == ""
    assert (tmp_path / done.stdout.strip() / "engine" / "engine.json").is_file()


def test_stop_after_convert_leaves_the_checkpoint(built: tuple[Path, str], factory: Command, tmp_path: Path) -> None:
    done = factory(*TINY, "stop_after=convert")
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "outputs" / NAME / built[0].name
    assert {path.name for path in directory.iterdir()} >= {"checkpoint", "manifest.json", "plan.json"}
    assert not (directory / "engine").exists()


def test_stop_after_does_not_undo_a_finished_engine(
    built: tuple[Path, str], python: Command, shared_store: Path
) -> None:
    directory = built[0]
    store = f"store.path={shared_store}"
    done = python("whisper_factory", store, *TINY, "stop_after=convert", cwd=directory.parents[2])
    assert done.returncode == 0, done.stderr
    assert (directory / "engine" / "engine.json").is_file()
    assert "validate" in json.loads((directory / "manifest.json").read_text())["steps"]


def test_help_begins_with_what_it_is_for(factory: Command) -> None:
    asked = factory("--help")
    assert asked.returncode == 0
    assert asked.stdout.startswith("Plans, converts, builds and validates a Whisper engine")
    assert "python -m whisper_factory.run --engine_dir" in asked.stdout.partition("== Configuration groups ==")[0]


def test_the_command_line_beats_the_profile(factory: Command) -> None:
    done = factory("profile=duplex_lowmem", "--cfg", "job")
    assert yaml.safe_load(done.stdout)["model"]["name"] == "base.en"
    done = factory("model=tiny.en", "profile=duplex_lowmem", "kv_cache=contiguous", "profile.max_input_len=900",
                   "--cfg", "job")
    config = yaml.safe_load(done.stdout)
    assert (config["model"]["name"], config["kv_cache"]["mode"]) == ("tiny.en", "contiguous")
    assert config["profile"]["max_input_len"] == 900
    alias = yaml.safe_load(factory("profile=ultra_low", "--cfg", "job").stdout)
    assert alias == yaml.safe_load(factory("profile=duplex_lowmem", "--cfg", "job").stdout)


def test_a_missed_gate_exits_3_on_every_run_and_keeps_the_engine(factory: Command, tmp_path: Path) -> None:
    overrides = (*TINY, "validation.min_token_agreement.int8=1.01", "validation.repeats=1")
    for _ in range(2):
        done = factory(*overrides)
        assert done.returncode == 3, done.stderr
        assert "error: tiny.en-int8-duplex_lowmem-paged-onnxruntime missed a gate of validation=quick" in done.stderr
        assert "token_agreement is" in done.stderr
    directory = next((tmp_path / "outputs" / NAME).iterdir())
    assert json.loads((directory / "validation.json").read_text())["passed"] is False
    assert (directory / "engine" / "engine.json").is_file()


def test_a_sweep_goes_on_past_a_composition_that_fails(factory: Command, tmp_path: Path) -> None:
    done = factory("-m", "model=tiny.en", "precision=int8,int4", "profile.max_input_len=0,750", "stop_after=convert")
    assert done.returncode == 2
    assert done.stderr.count("error: profile.max_input_len=0") == 2
    assert len([path for path in (tmp_path / "outputs").iterdir() if path.name.startswith("tiny.en")]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=tinny.en"], "unknown model 'tinny.en'; did you mean 'tiny.en'? choices: base, base.en"),
        (["precison=int8"], "unknown setting 'precison'; did you mean 'precision'? choices: backend, calibration"),
        (["profile.max_inputlen=3"], "did you mean 'profile.max_input_len'?"),
        (["profile.max_batch_size=abc"], "profile.max_batch_size: Value 'abc' of type 'str' could not be converted"),
        (["profile.max_input_len=0"], "profile.max_input_len=0: must be 100 to 3000"),
        (["profile=duplex_lowmem", "profile.max_input_len=3100"], "must be 100 to 3000"),
        (["+foo=3"], "unknown setting 'foo'"),
        (["+profile.beams=3"], "unknown setting 'profile.beams'"),
        (["model=null"], "Config group override must be a string"),
        (["backend=tensorrt_llm"], "device names none; choose a device with a compute capability"),
        (["weights=path", "weights.path=absent.pt"], "absent.pt is not a file"),
        (["weights=huggingface", "weights.path=."], "holds no config.json"),
        (["model=small", "weights=package"], "no weights package is known for model 'small'"),
        (["validation.clips=absent.json"], "absent.json"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(factory: Command, tmp_path: Path, overrides: list[str], says: str) -> None:
    done = factory(*overrides)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "outputs").exists()


def test_no_network_is_one_line_and_exit_4(factory: Command) -> None:
    # A port nobody listens on: the download is refused at once.
    done = factory("model=small.en", "weights=openai", "model.url=http://127.0.0.1:9/small.en.pt")
    assert done.returncode == 4, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "http://127.0.0.1:9/small.en.pt" in errors[0]
    assert "weights=path weights.path=" in errors[0]


def test_a_full_error_is_there_when_asked_for(factory: Command) -> None:
    done = factory("profile.max_input_len=0", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_outputs_that_cannot_be_written_are_the_environments_fault(built: tuple[Path, str], factory: Command,
                                                                   tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = factory(*TINY, "outputs=file")
    assert done.returncode == 4, done.stderr
    assert "outputs=DIR moves the outputs" in done.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def test_outputs_at_a_dangling_link_are_one_error(built: tuple[Path, str], factory: Command, tmp_path: Path) -> None:
    (tmp_path / "outputs").symlink_to(tmp_path / "absent" / "deep")
    done = factory(*TINY)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("error: cannot write") == 1


def test_the_sweep_flag_may_stand_anywhere(factory: Command, tmp_path: Path) -> None:
    done = factory("model=tiny.en", "stop_after=convert", "-m", "precision=int8,int4")
    assert done.returncode == 0, done.stderr
    assert len([path for path in (tmp_path / "outputs").iterdir() if path.name.startswith("tiny.en")]) == 2


def test_the_kept_configuration_is_the_composition_not_the_run(built: tuple[Path, str]) -> None:
    kept = yaml.safe_load((built[0] / "config.yaml").read_text())
    assert set(kept) == {"model", "precision", "profile", "kv_cache", "backend", "weights", "device", "validation",
                         "trtllm_version"}


def test_a_store_with_spaces_and_other_scripts(factory: Command, python: Command, tmp_path: Path) -> None:
    done = python("whisper_factory", *TINY, "stop_after=fetch", "store.path='a b/стор'", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "a b" / "стор" / "fetch")


def test_a_sweep_that_only_plans_prints_one_table(factory: Command) -> None:
    done = factory("-m", "profile=batch,interactive", "kv_cache=paged,contiguous", "model=tiny.en", "dry_run=true")
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header[:3] == ["composition", "KV", "slots"]
    assert [row[0].split("-")[2:4] for row in rows] == [["batch", "paged"], ["batch", "contiguous"],
                                                        ["interactive", "paged"], ["interactive", "contiguous"]]
    assert [row[1] for row in rows] == ["32", "32", "1", "1"]
    assert rows[2][2:4] == ["-96.9", "%"]  # 32 slots to 1


def test_what_does_not_fit_is_refused_with_what_would(factory: Command, tmp_path: Path) -> None:
    done = factory("profile=batch", "model=small.en", "device=jetson_orin_nano_8gb", "device.reserved_mb=7000")
    assert done.returncode == 2
    assert "device jetson_orin_nano_8gb has 1.00 GB for it" in done.stderr
    assert done.stderr.count(" saves ") == 3
    assert not (tmp_path / "outputs").exists()
