"""Hydra's launchers: what is ready in conf/, what is said without a plugin, and sweeps in other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from tests.conftest import Command
from whisper_factory.complaints import PLUGINS
from whisper_factory.job import configuration_directory
from whisper_factory.schema import Composition
from whisper_factory.store import holds
from whisper_factory.sweeps.rows import UNFINISHED

SWEEP = ("-m", "model=debug", "profile=duplex_lowmem", "validation=none")


def launcher(*overrides: str) -> Any:
    """The launcher's part of what the command line would compose."""
    ConfigStore.instance().store(name="base_schema", node=Composition)
    with initialize_config_dir(str(configuration_directory().absolute()), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True).hydra.launcher


def test_slurm_is_ready_to_use() -> None:
    made = launcher("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gres='gpu:1'")
    assert made._target_.endswith("submitit_launcher.SlurmLauncher")
    assert (made.name, made.partition, made.gres, made.cpus_per_task) == ("whisper_factory", "gpu", "gpu:1", 4)
    assert made.max_num_timeout > 0, "a job that runs out of time goes on from its last finished step"


def test_its_papers_are_in_the_sweeps_directory() -> None:
    for name in ("slurm", "local"):
        assert launcher(f"hydra/launcher={name}", "hydra.sweep.dir=here").submitit_folder == "here/.submitit/%j"


@pytest.fixture
def without_plugins(tmp_path: Path) -> dict[str, str]:
    """An environment whose `hydra_plugins` is an empty package, which hides the installed ones."""
    (tmp_path / "empty" / "hydra_plugins").mkdir(parents=True)
    (tmp_path / "empty" / "hydra_plugins" / "__init__.py").touch()
    return {"PYTHONPATH": f"{tmp_path / 'empty'}:{Path(__file__).parents[2]}"}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in PLUGINS.items() for name in names])
def test_what_needs_a_plugin_that_is_not_there_is_told_in_one_line(factory: Command, without_plugins: dict[str, str],
                                                                   group: str, name: str) -> None:
    done = factory(*SWEEP, f"{group}={name}", **without_plugins)
    plugin, extra = PLUGINS[group][name]
    made_from = {"search": "optuna"}.get(name, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: {group}={made_from} needs {plugin}, which is not installed; "
                           f"pip install 'whisper-factory[{extra}]'\n")


def test_a_launcher_that_nobody_has(factory: Command) -> None:
    done = factory(*SWEEP, "hydra/launcher=slrm")
    assert (done.returncode, done.stderr) == (
        2, "error: unknown hydra/launcher 'slrm'; did you mean 'slurm'? choices: basic, joblib, slurm, local\n")


def test_nothing_else_needs_a_plugin(factory: Command, without_plugins: dict[str, str]) -> None:
    asked = factory("--help", **without_plugins)
    planned = factory("model=debug", "dry_run=true", **without_plugins)
    swept = factory(*SWEEP, "precision=int8,int4", "dry_run=true", **without_plugins)
    assert [done.returncode for done in (asked, planned, swept)] == [0, 0, 0]


@pytest.mark.parametrize("options", [("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), ("hydra/launcher=local",)])
def test_a_sweep_in_other_processes(factory: Command, tmp_path: Path, options: tuple[str, ...]) -> None:
    """One composition fails: it is listed, the other is made, and the exit code is the failure's."""
    first = factory(*SWEEP, "device.reserved_mb=0,99999999", "outputs=made here", *options)
    assert first.returncode == 2, first.stderr
    (directory,) = (tmp_path / "made here" / "sweeps").iterdir()
    rows = {row["status"]: row for row in json.loads((directory / "report.json").read_text())["rows"]}
    assert (tmp_path / rows["passed"]["directory"] / "engine" / "engine.json").is_file()
    assert "device cpu has 0 MB for it" in rows["failed"]["error"]
    assert "99999999" in rows["failed"]["command"]
    assert "hydra" not in rows["failed"]["command"]


# Submitit looks for the results of a job that ended without any for 15 s.
IMPATIENT = ("import runpy; from submitit.core.core import Job; Job._results_timeout_s = 1; "
             "runpy.run_module('whisper_factory', run_name='__main__', alter_sys=True)")


def test_a_job_that_is_killed_is_a_row_and_made_by_the_same_command(tmp_path: Path) -> None:
    """Its store is being tidied, so that it waits to be killed."""
    store = tmp_path / "store"
    command = [sys.executable, "-c", IMPATIENT, *SWEEP, "precision=int8,int4", f"store.path={store}",
               "hydra/launcher=local"]
    (store / "locks").mkdir(parents=True)
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sweep:
        with holds.locked(store / "locks" / "store.lock"):
            kill_first_job(tmp_path)
        printed, told = sweep.communicate(timeout=300)
    assert sweep.returncode == 4, told
    assert "error: the launcher gave up (UncompletedJobError: " in told
    assert "Error stream" not in told
    assert UNFINISHED in printed
    again = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "2 compositions" in again.stdout
    assert UNFINISHED not in again.stdout


def kill_first_job(sweep: Path) -> None:
    """Kill the process that makes a sweep's first composition, as soon as it has begun."""
    for _ in range(5000):
        if list(sweep.glob("outputs/sweeps/*/rows/00000.json")):
            break
        time.sleep(0.02)
    first = min(int(path.name) for path in sweep.glob("outputs/sweeps/*/.submitit/[0-9]*"))  # named by its process
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)


def test_what_a_launcher_refuses_is_one_line(factory: Command) -> None:
    none = factory(*SWEEP, "precision=int8,int4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0")
    assert (none.returncode, none.stderr) == (2, "error: hydra.launcher: n_jobs == 0 in Parallel has no meaning\n")
    off = factory(*SWEEP, "precision=int8,int4", "hydra/launcher=slurm", PATH="/nowhere")
    assert (off.returncode, off.stderr.count("\n")) == (4, 1)
    assert "are you indeed on a slurm cluster?" in off.stderr
