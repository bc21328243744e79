"""`python -m whisper_factory`: compose with Hydra, then plan and run.

Hydra's own way of failing is several lines and exit code 1. Here every error that is not a bug of ours is one
line on standard error and an exit code that says whose it is; HYDRA_FULL_ERROR=1 shows the traceback instead.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from whisper_factory import complaints

log = logging.getLogger("whisper_factory")
FULL_ERROR = "HYDRA_FULL_ERROR"


def configuration_directory() -> Path:
    """conf/: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"


def main() -> None:
    """The console script. Exits with the code of the first composition that failed."""
    wants_traceback = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would otherwise print
    exit_codes: list[int] = []
    try:
        _hydra(exit_codes, wants_traceback)
    except KeyboardInterrupt:
        print("interrupted; finished steps are kept", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if wants_traceback:
            raise
        exit_codes.append(_tell(error))
    if exit_codes:
        sys.exit(exit_codes[0])


def _tell(error: Exception) -> int:
    """Print one line about an error and return its exit code."""
    known = complaints.explain(error, configuration_directory())
    print(f"error: {known or _bug(error)}", file=sys.stderr)
    return known.exit_code if known else 1


def _hydra(exit_codes: list[int], wants_traceback: bool) -> None:
    import hydra
    from hydra.core.config_store import ConfigStore

    from whisper_factory.schema import Composition

    ConfigStore.instance().store(name="base_schema", node=Composition)

    def job(config: Any) -> None:
        try:
            _produce(config)
        except Exception as error:  # a sweep goes on with its next composition
            if wants_traceback:
                raise
            exit_codes.append(_tell(error))

    hydra.main(version_base="1.3", config_path=str(configuration_directory()), config_name="config")(job)()


def _produce(config: Any) -> None:
    from omegaconf import OmegaConf

    from whisper_factory import factory, report
    from whisper_factory.schema import Composition

    complaints.refuse_strangers(OmegaConf.to_container(config), configuration_directory())
    composition = OmegaConf.to_object(config)
    assert isinstance(composition, Composition)
    _set_up_logging(composition.quiet or composition.dry_run)
    outcome = factory.produce(composition, OmegaConf.to_yaml(config, resolve=True))
    if composition.quiet:
        print(outcome.plan.directory)
    else:
        print(report.plan_table(outcome) if composition.dry_run else report.result(outcome))
    factory.check_gates(outcome)


def _set_up_logging(quiet: bool) -> None:
    """Progress goes to standard error, one plain line each; the result goes to standard output."""
    log.handlers.clear()
    log.propagate = False
    log.setLevel(logging.INFO)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.WARNING if quiet else logging.INFO)
    console.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(console)


def _bug(error: Exception) -> str:
    where = "unknown place"
    if error.__traceback__:
        trace = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return (f"this is a bug of whisper_factory: {type(error).__name__} at {where}: {error}; "
            "run again with HYDRA_FULL_ERROR=1 for the traceback")


if __name__ == "__main__":
    main()
