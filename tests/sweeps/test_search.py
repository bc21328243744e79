"""hydra/sweeper=search: Optuna asks, the factory answers, and what cannot be used is the worst answer there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from tests.conftest import Command
from tests.sweeps.samples import failed, row
from whisper_factory import job
from whisper_factory.job import configuration_directory
from whisper_factory.schema import Composition

NAMES = ["wer", "latency_ms_p50", "peak_mb"]
# Of the values of weights, one cannot work.
SEARCH = ("-m", "hydra/sweeper=search", "model=debug", "precision=int8", "profile.max_input_len=750",
          "weights=auto,path", "hydra.sweeper.n_trials=4", "quiet=true")


def test_it_is_ready_to_use() -> None:
    ConfigStore.instance().store(name="base_schema", node=Composition)
    with initialize_config_dir(str(configuration_directory().absolute()), version_base="1.3"):
        made = compose("config", overrides=["hydra/sweeper=search"], return_hydra_config=True)
        for key, choices in made.hydra.sweeper.params.items():
            for value in choices.removeprefix("choice(").removesuffix(")").split(","):
                compose("config", overrides=[f"{key}={value}"])
    assert [str(direction) for direction in made.hydra.sweeper.direction] == ["minimize"] * len(made.objectives)
    assert made.hydra.sweeper.sampler.seed == 0, "the same command is the same search"


@pytest.mark.parametrize("unusable", [
    failed(), row(status="missed", exit_code=3), row(evidence="preflight", latency_ms_p50=None, peak_mb=None),
])
def test_what_cannot_be_used_is_worse_than_anything(unusable: Any) -> None:
    assert job._told(unusable, NAMES) == (job.WORST,) * 3
    assert job._told(row(), NAMES) == (4.62, 132.0, 138.0)
    assert job._told(row(), ["engine_mb"]) == (44.0,)


def test_a_search_goes_on_past_a_failure_and_is_the_same_again(
    factory: Command, tmp_path: Path, one_clip: tuple[str, ...]
) -> None:
    first = factory(*SEARCH, *one_clip)
    assert "weights=path needs weights.path" in first.stderr
    assert "Warning" not in first.stderr
    assert first.returncode == 2
    (directory,) = (tmp_path / "outputs" / "sweeps").iterdir()
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    assert {entry["status"] for entry in report["rows"]} == {"passed", "failed"}
    assert len(list((directory / "rows").iterdir())) == 4
    solutions = OmegaConf.load(directory / "optimization_results.yaml").solutions
    assert {str(solution.params.weights) for solution in solutions} == {"auto"}
    again = factory(*SEARCH, *one_clip)
    assert (again.returncode, again.stdout) == (2, first.stdout)
    assert json.loads((directory / "report.json").read_text(encoding="utf-8")) == report


def test_as_many_directions_as_objectives(factory: Command) -> None:
    done = factory(*SEARCH, "objectives=[wer,engine_mb]")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == ("error: 2 objectives and 3 directions of the search; give as many: "
                                            "hydra.sweeper.direction=[minimize,minimize]")


def test_a_search_that_only_plans_and_one_in_which_all_fail(factory: Command) -> None:
    guessing = ("hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.n_startup_trials=2")  # two are drawn at random
    planned = factory(*SEARCH[:-1], "dry_run=true", *guessing)
    assert planned.returncode == 2
    assert "KV slots" in planned.stdout
    lost = factory(*SEARCH, "weights=path", *guessing)
    assert lost.returncode == 2
    assert "bug" not in lost.stderr
    assert lost.stderr.count("weights=path needs weights.path") == 4
