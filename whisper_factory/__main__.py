"""`python -m whisper_factory`: compose with Hydra, then plan and run.

Hydra's own way of failing is several lines and exit code 1. Here every error that is not a bug of ours is one
line on standard error and an exit code that says whose it is; HYDRA_FULL_ERROR=1 shows the traceback instead.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from whisper_factory import complaints, console, recipes
from whisper_factory.job import FULL_ERROR, configuration_directory, job, planned
from whisper_factory.sweeps import running


def main() -> None:
    """The console script. Exits with the code of the first composition that failed."""
    console.prepare()
    exit_codes: list[int] = []
    try:
        exit_codes.append(_sweep() if running.is_sweep(sys.argv[1:]) else _hydra())
    except KeyboardInterrupt:
        print("interrupted; finished steps are kept", file=sys.stderr)
        sys.exit(console.INTERRUPTED)
    except SystemExit as ended:  # of a composition that failed and said so, or of --help
        exit_codes.append(ended.code if isinstance(ended.code, int) else 0)
    except Exception as error:
        if console.wants_traceback():
            raise
        exit_codes.append(console.tell(error, complaints.explain(error, configuration_directory())))
    exit_codes.append(console.finish())
    sys.exit(next((code for code in exit_codes if code), 0))


def _sweep() -> int:
    """Run a sweep; what its jobs left is reported even if one of them took the launcher along."""
    warnings.filterwarnings("ignore", module="optuna")  # that an option of hydra/sweeper=search may change some day
    with tempfile.TemporaryDirectory() as scratch:
        sweep = running.prepare(sys.argv[1:], Path(scratch))
        with running.at_work(sweep) as arguments:
            sys.argv[1:] = arguments
            try:
                _hydra()
            except BaseException:
                running.finish(sweep, whole=False)
                raise
            code = running.finish(sweep)
    if planned:
        from whisper_factory import report

        print(report.comparison(planned))
    return code


def _hydra() -> int:
    import hydra
    from hydra.core.config_store import ConfigStore

    from whisper_factory.schema import Composition

    ConfigStore.instance().store(name="base_schema", node=Composition)
    recipes.register()
    before = os.environ.get(FULL_ERROR)
    if before == "1":
        os.environ[console.WANT_TRACEBACK[0]] = "1"
    os.environ[FULL_ERROR] = "1"
    try:
        with nullcontext() if running.is_sweep(sys.argv[1:]) else _composed_once():
            hydra.main(version_base="1.3", config_path=str(configuration_directory()), config_name="config")(job)()
    finally:
        if before is None:
            os.environ.pop(FULL_ERROR, None)
        else:
            os.environ[FULL_ERROR] = before
    return 0


@contextmanager
def _composed_once() -> Iterator[None]:
    """What is no sweep has one mode. Hydra would compose all of it once more to read that: a quarter of planning."""
    from hydra._internal.hydra import Hydra

    asks = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # none is said: as it was asked for
    try:
        yield
    finally:
        Hydra.get_mode = asks


if __name__ == "__main__":
    main()
