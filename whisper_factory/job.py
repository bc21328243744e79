"""One composition, as Hydra's launchers run it: in this process, in another, or on another host.

A launcher can send it anywhere, since it imports by name and needs nothing of the process that started it; what a
sweep has to know of it goes into a row in the sweep's directory.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory import complaints, console, progress
from whisper_factory.errors import GateMissed, UserError, choices
from whisper_factory.recipes import RUN_ONLY

if TYPE_CHECKING:
    from whisper_factory.factory import Outcome
    from whisper_factory.schema import Composition

log = logging.getLogger("whisper_factory")
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra then raises what it would otherwise print
OBJECTIVES = ("wer", "wer_increase", "latency_ms_p50", "latency_ms_p95", "real_time_factor", "peak_mb", "engine_mb",
              "build_seconds")
WORST = 1e9  # not infinity: Optuna's TPE sampler cannot weigh it
planned: list[Outcome] = []  # by a sweep that only plans, which happens in one process


def job(config: Any) -> tuple[float, ...] | None:
    """Make the composition that Hydra composed.

    Returns:
        In a sweep, the numbers that `objectives` names, for a sweeper that searches; of a composition that failed,
        missed a gate or was not measured, WORST in their place: without a number the search would end there.

    Raises:
        SystemExit: the composition failed, and that was said. In a sweep it becomes a row, and the sweep goes on.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    full = os.environ.pop(FULL_ERROR, None)  # children must not see what is meant for Hydra
    wanted = console.wants_traceback()
    try:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return _one_of_many(config, wanted)
        _alone(config, wanted)
        return None
    finally:
        if full is not None:
            os.environ[FULL_ERROR] = full


def _alone(config: Any, wants_traceback: bool) -> None:
    try:
        composition, outcome = _make(config)
        _show(outcome, composition)
        _check(outcome)
    except Exception as error:
        if wants_traceback:
            raise
        raise SystemExit(console.tell(error, complaints.explain(error, configuration_directory()))) from error


def _one_of_many(config: Any, wants_traceback: bool) -> tuple[float, ...]:
    """A job of a sweep: its row, whatever happens, and its objectives."""
    from hydra.core.hydra_config import HydraConfig

    from whisper_factory.sweeps import rows

    hydra = HydraConfig.get()
    _check_directions(hydra.sweeper.get("direction"), config.objectives)
    overrides, directory, number = list(hydra.overrides.task), Path(hydra.sweep.dir) / "rows", int(hydra.job.num)
    if not config.dry_run:
        rows.write(directory, number, rows.begun(_name(config), overrides))
    try:
        composition, outcome = _make(config)
        if composition.dry_run and not composition.quiet:
            planned.append(outcome)
            return (WORST,) * len(config.objectives)
        _show(outcome, composition)
        row = rows.made(outcome, overrides)
        try:
            _check(outcome)
        except GateMissed as error:
            row = rows.made(outcome, overrides, str(error))
            console.tell(error)
    except Exception as error:  # a sweep goes on with its next composition
        if wants_traceback:
            traceback.print_exc()
        known = complaints.explain(error, configuration_directory())
        code = console.tell(error, known)
        row = rows.failed(_name(config), overrides, str(known or console.bug(error)), code)
    rows.write(directory, number, row)
    return _told(row, config.objectives)


def _check_directions(directions: Any, objectives: Sequence[str]) -> None:
    """A sweeper that searches takes as many numbers as it has directions, and says so late and obscurely."""
    from omegaconf import OmegaConf

    if OmegaConf.is_list(directions) and len(directions) != len(objectives):
        wanted = ",".join(["minimize"] * len(objectives))
        raise SystemExit(console.tell(UserError(
            f"{len(objectives)} objectives and {len(directions)} directions of the search; give as many: "
            f"hydra.sweeper.direction=[{wanted}]")))


def _told(row: Mapping[str, Any], names: Sequence[str]) -> tuple[float, ...]:
    """A composition's numbers for a sweeper that searches; the worst there are if it is not to be used."""
    numbers = [row[name] for name in names]
    usable = row["status"] == "passed" and None not in numbers
    return tuple(map(float, numbers)) if usable else (WORST,) * len(names)


def _make(config: Any) -> tuple[Composition, Outcome]:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from whisper_factory import factory, lock, schema

    complaints.refuse_strangers(OmegaConf.to_container(config), configuration_directory())
    composition = OmegaConf.to_object(config)
    assert isinstance(composition, schema.Composition)
    _set_up_logging(composition.quiet or composition.dry_run)
    schema.check(composition)
    _check_objectives(composition.objectives)
    hydra = HydraConfig.get()
    typed = [override.partition("=")[0].lstrip("+") for override in hydra.overrides.task]
    notes = schema.settle(composition, typed)
    config.kv_cache.mode = composition.kv_cache.mode  # what was settled is what is declared
    declared = OmegaConf.masked_copy(config, [key for key in config if key not in RUN_ONLY])
    text = _text(declared)
    changed = [key for key in typed if key.partition(".")[0] not in (*RUN_ONLY, "recipe")]
    if any(override.startswith("recipe=[") for override in hydra.overrides.task):  # Hydra would merge them
        raise UserError("one recipe at a time; with -m, recipe=a,b makes one after the other")
    keeper = lock.keeper(composition, hydra.runtime.choices.get("recipe"), text, changed)
    return composition, factory.produce(composition, text, notes, keeper)


def _text(declared: Any) -> str:
    """A declaration as YAML, resolved, without what only later versions can say: older locks still hold."""
    from omegaconf import OmegaConf

    from whisper_factory.engine_spec import said

    plain: Any = OmegaConf.to_container(declared, resolve=True)
    plain["precision"] = said(plain["precision"])
    if plain["calibration"]["method"] == "none" and "max_wer_delta" not in plain["precision"]:
        del plain["calibration"]
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def _check_objectives(objectives: Sequence[str]) -> None:
    for name in objectives:
        if name not in OBJECTIVES:
            raise UserError(f"objectives: unknown '{name}'; {choices(name, OBJECTIVES)}")


def _show(outcome: Outcome, composition: Composition) -> None:
    from whisper_factory import report

    if composition.quiet:
        print(outcome.plan.directory)
    else:
        print(report.plan_table(outcome) if composition.dry_run else report.result(outcome))


def _check(outcome: Outcome) -> None:
    from whisper_factory import factory

    factory.check_gates(outcome)


def _name(config: Any) -> str:
    """A composition's name, though it may be too wrong to have one."""
    from omegaconf import OmegaConf

    parts = (OmegaConf.select(config, key, default=None, throw_on_missing=False)
             for key in ("model.name", "precision.name", "profile.name", "kv_cache.mode", "backend.name"))
    return "-".join(str(part) for part in parts if part)


def configuration_directory() -> Path:
    """conf/: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"


def _set_up_logging(quiet: bool) -> None:
    """Progress goes to standard error, in plain lines and bars; the result goes to standard output."""
    log.handlers.clear()
    log.propagate = False
    log.setLevel(logging.INFO)
    handler = progress.Lines(sys.stderr)
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
