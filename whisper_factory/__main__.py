"""`python -m whisper_factory`: compose with Hydra, then plan and run.

Hydra's own way of failing is several lines and exit code 1. Here every error that is not a bug of ours is one
line on standard error and an exit code that says whose it is; HYDRA_FULL_ERROR=1 shows the traceback instead.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory import complaints, console, progress

if TYPE_CHECKING:
    from whisper_factory.factory import Outcome

log = logging.getLogger("whisper_factory")
FULL_ERROR = "HYDRA_FULL_ERROR"
SWEEP = ("-m", "--multirun")
RUN_ONLY = ("outputs", "store", "dry_run", "stop_after", "quiet")  # of this run, not of the engine it makes


def configuration_directory() -> Path:
    """conf/: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"


def main() -> None:
    """The console script. Exits with the code of the first composition that failed."""
    console.prepare()
    wants_traceback = console.wants_traceback()
    exit_codes: list[int] = []
    try:
        _hydra(exit_codes, wants_traceback)
    except KeyboardInterrupt:
        print("interrupted; finished steps are kept", file=sys.stderr)
        sys.exit(console.INTERRUPTED)
    except Exception as error:
        if wants_traceback:
            raise
        exit_codes.append(_tell(error))
    exit_codes.append(console.finish())
    sys.exit(next((code for code in exit_codes if code), 0))


def _tell(error: Exception) -> int:
    return console.tell(error, complaints.explain(error, configuration_directory()))


def _hydra(exit_codes: list[int], wants_traceback: bool) -> None:
    import hydra
    from hydra.core.config_store import ConfigStore

    from whisper_factory.schema import Composition

    ConfigStore.instance().store(name="base_schema", node=Composition)
    before = os.environ.get(FULL_ERROR)
    planned: list[Outcome] = []

    def job(config: Any) -> None:
        _restore(before)  # children must not see what is meant for Hydra
        try:
            _produce(config, planned)
        except Exception as error:  # a sweep goes on with its next composition
            if wants_traceback:
                raise
            exit_codes.append(_tell(error))
        finally:
            os.environ[FULL_ERROR] = "1"

    os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would otherwise print
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in SWEEP)  # `a=1 -m b=1,2` works too
    try:
        hydra.main(version_base="1.3", config_path=str(configuration_directory()), config_name="config")(job)()
    finally:
        _restore(before)
    if planned:
        from whisper_factory import report

        print(report.comparison(planned))


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(FULL_ERROR, None)
    else:
        os.environ[FULL_ERROR] = before


def _produce(config: Any, planned: list[Outcome]) -> None:
    """Make one composition; those that a sweep only plans are collected for one table."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from whisper_factory import factory, report, schema
    from whisper_factory.schema import Composition

    complaints.refuse_strangers(OmegaConf.to_container(config), configuration_directory())
    composition = OmegaConf.to_object(config)
    assert isinstance(composition, Composition)
    _set_up_logging(composition.quiet or composition.dry_run)
    schema.check(composition)
    typed = [override.partition("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task]
    notes = schema.settle(composition, typed)
    config.kv_cache.mode = composition.kv_cache.mode  # what was settled is what is declared
    declared = OmegaConf.masked_copy(config, [key for key in config if key not in RUN_ONLY])
    outcome = factory.produce(composition, OmegaConf.to_yaml(declared, resolve=True), notes)
    if composition.quiet:
        print(outcome.plan.directory)
    elif composition.dry_run and HydraConfig.get().mode == RunMode.MULTIRUN:
        planned.append(outcome)
    else:
        print(report.plan_table(outcome) if composition.dry_run else report.result(outcome))
    factory.check_gates(outcome)


def _set_up_logging(quiet: bool) -> None:
    """Progress goes to standard error, in plain lines and bars; the result goes to standard output."""
    log.handlers.clear()
    log.propagate = False
    log.setLevel(logging.INFO)
    handler = progress.Lines(sys.stderr)
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)


if __name__ == "__main__":
    main()
