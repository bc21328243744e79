"""Sweeps through the command line: steps shared, failures listed, resumed, one at a time, planned without a trace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import filelock
import pytest

from tests.conftest import Command
from whisper_factory.sweeps import page, rows, running

GRID = ("-m", "model=debug", "precision=int8,int4", "profile=duplex_lowmem,interactive", "validation=none")


def prepared(*arguments: str) -> running.Sweep:
    return running.prepare(arguments, Path("/nowhere"))


def test_a_sweep_is_known_by_what_it_makes_not_by_how_it_runs() -> None:
    key = prepared("-m", "model=tiny.en,base", "precision=int8").key
    assert prepared("precision=int8", "model=tiny.en,base", "--multirun").key == key
    assert prepared("-m", "model=tiny.en,base", "precision=int8", "outputs=x", "store.path=y", "quiet=true",
                    "hydra/launcher=joblib", "hydra.launcher.n_jobs=2").key == key
    assert prepared("-m", "model=tiny.en,base", "precision=int4").key != key


@pytest.mark.parametrize(
    ("arguments", "directory"),
    [
        ([], "outputs/sweeps"),
        (["outputs=there"], "there/sweeps"),
        (["outputs='~/my engines'"], "HOME/my engines/sweeps"),
        (["outputs=a", "outputs='it\\'s'"], "it's/sweeps"),
    ],
)
def test_where_its_papers_are(
    arguments: list[str], directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "HOME"))
    sweep = prepared("-m", *arguments)
    assert sweep.directory.parent == tmp_path / directory
    assert sweep.directory.name == sweep.key[:12]
    assert prepared("-m", "hydra.sweep.dir=/elsewhere").directory == Path("/elsewhere")


def test_a_dry_run_leaves_its_launcher_out() -> None:
    sweep = prepared("-m", "hydra/launcher=slurm", "hydra.launcher.cpus=2", "dry_run=true", "model=base")
    assert sweep.arguments == ["-m", "dry_run=true", "model=base"]
    assert sweep.directory == Path("/nowhere")


def test_a_sweep_is_made_reported_and_made_no_more(factory: Command, tmp_path: Path) -> None:
    mine = (*GRID, "model.seed=11")  # which no other test has made
    done = factory(*mine)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("convert   canonical checkpoint") == 2  # for four compositions
    assert done.stderr.count("fetch     weights of debug") == 1
    sweep = next((tmp_path / "outputs" / "sweeps").iterdir())
    assert f"report      {sweep / 'report.html'}" in done.stdout
    report = json.loads((sweep / "report.json").read_text())
    assert len(report["rows"]) == 4
    assert all(row["status"] == "passed" and row["engine_mb"] > 0 for row in report["rows"])
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    again = factory(*mine)
    assert again.returncode == 0
    assert again.stderr.count("didn't change") == 4 * 3
    assert " done in " not in again.stderr


def test_failures_are_listed_and_the_rest_is_made(factory: Command, tmp_path: Path) -> None:
    done = factory("-m", "model=debug", "weights=auto,package", "precision=int8,int4", "validation=none")
    assert done.returncode == 2
    assert done.stderr.count("error: no weights package is known for model 'debug'") == 2
    rows = json.loads(next((tmp_path / "outputs" / "sweeps").glob("*/report.json")).read_text())["rows"]
    assert sorted(row["status"] for row in rows) == ["failed", "failed", "passed", "passed"]
    wrong = [row for row in rows if row["status"] == "failed"]
    assert all("no weights package" in row["error"] and "weights=package" in row["command"] for row in wrong)
    assert "no weights package" in done.stdout


def test_a_missed_gate_is_a_row_and_exit_3(factory: Command, tmp_path: Path, one_clip: tuple[str, ...]) -> None:
    done = factory("-m", "model=debug", "precision=int8", "profile=duplex_lowmem,ultra_low",
                   "validation.max_latency_ms=0.001", *one_clip)
    assert done.returncode == 3, done.stderr
    rows = json.loads(next((tmp_path / "outputs" / "sweeps").glob("*/report.json")).read_text())["rows"]
    assert [row["status"] for row in rows] == ["missed", "missed"]
    assert all("latency_ms_mean is" in row["error"] and row["latency_ms_p95"] >= row["latency_ms_p50"] > 0
               for row in rows)


def test_one_process_at_a_time(factory: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = prepared(*GRID).directory
    directory.mkdir(parents=True)
    with filelock.FileLock(directory / ".lock"):
        done = factory(*GRID)
    assert done.returncode == 4
    assert done.stderr.count("error: another process is at work on this sweep") == 1


def test_a_sweep_of_many_dry_runs_leaves_nothing(factory: Command, tmp_path: Path) -> None:
    done = factory(*GRID, "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    assert os.listdir(tmp_path) == []
    done = factory("-m", "model=debug", "weights=auto,package", "dry_run=true")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert len(done.stdout.splitlines()) == 2


def test_a_quiet_sweep_prints_its_directories(factory: Command, tmp_path: Path) -> None:
    done = factory(*GRID, "quiet=true")
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 4
    assert all((tmp_path / line / "engine" / "engine.json").is_file() for line in done.stdout.splitlines())


def test_an_unknown_objective_is_one_line(factory: Command) -> None:
    done = factory("model=debug", "objectives=[wer,size]", "dry_run=true")
    assert done.returncode == 2
    assert "error: objectives: unknown 'size'; choices: wer, wer_increase" in done.stderr


@pytest.mark.parametrize("words", [("--help",), ("--cfg", "job"), ("--info=plugins",), ("--hydra-help",)])
def test_a_question_leaves_nothing(factory: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    factory("-m", "model=debug", *words)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_of_nothing_is_a_mistake(factory: Command) -> None:
    done = factory("-m", "model=debug", "profile.max_new_tokens=range(1,1)")
    assert done.returncode == 2
    assert done.stderr == "error: the sweep has no compositions: one of its ranges or globs is empty\n"


def test_tracebacks_do_not_end_a_sweep(factory: Command, tmp_path: Path) -> None:
    done = factory("-m", "model=debug", "precision.bits=3,8", "stop_after=fetch", HYDRA_FULL_ERROR="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    rows = json.loads(next((tmp_path / "outputs" / "sweeps").glob("*/report.json")).read_text())["rows"]
    assert [row["status"] for row in rows] == ["passed", "failed"]
    assert "precision.bits=3: choices: 0" in rows[1]["error"]


def test_a_sweep_that_is_cut_short_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = prepared("-m", "model=tiny.en,base")
    rows.write(sweep.rows, 0, rows.begun("tiny.en", ["model=tiny.en"]))
    assert running.finish(sweep, whole=False) == 4
    assert page.CUT_SHORT in capsys.readouterr().out
    assert page.CUT_SHORT in (sweep.directory / "report.html").read_text()
    assert json.loads((sweep.directory / "report.json").read_text())["sweep"]["whole"] is False
    running.finish(sweep)
    assert page.CUT_SHORT not in capsys.readouterr().out + (sweep.directory / "report.html").read_text()
