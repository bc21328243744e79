"""Hydra's and OmegaConf's errors, told in one line: what is wrong, the choices, the nearest one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from whisper_factory import console, recipes
from whisper_factory.errors import EnvironmentFault, FactoryError, UserError, choices

# Members of Hydra's own groups that come with a plugin: the plugin, and the extra of ours that installs it.
PLUGINS = {
    "hydra/launcher": {"joblib": ("hydra-joblib-launcher", "sweep"), "slurm": ("hydra-submitit-launcher", "slurm"),
                       "local": ("hydra-submitit-launcher", "slurm")},
    "hydra/sweeper": {"search": ("hydra-optuna-sweeper", "search"), "optuna": ("hydra-optuna-sweeper", "search")},
}


def explain(error: BaseException, conf: Path) -> FactoryError | None:
    """The user's mistake behind an exception, or None if it is no mistake of theirs.

    Args:
        conf: the configuration directory, for the names of groups and their members.
    """
    if fault := console.known(error):  # Hydra is not installed, say
        return fault
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    chain = list(console.chain(error))
    if fault := _launchers(error):
        return fault
    for link in chain:
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return _missing(link, conf)
    told = [link for link in chain if isinstance(link, OmegaConfBaseException | HydraException) or _is_hydras(link)]
    told.sort(key=lambda link: (not getattr(link, "full_key", None), "$" in str(link)))  # the one that names a key
    if not told:
        return None
    said, file = _reworded(str(told[0]), str(chain[0]), conf), re.search(r"In '(recipe/\S+)':", str(chain[0]))
    return UserError(f"{file[1]}: {said}" if file and file[1] not in said else said)


def _launchers(error: BaseException) -> FactoryError | None:
    """What a launcher that sends jobs elsewhere gave up for: a job that was killed, a cluster that is not there."""
    defined, raised = type(error).__module__, _raised_in(error)
    if not any(module.startswith(("submitit.", "joblib.")) for module in (defined, raised)):
        return None
    said = " ".join(str(error).partition("Error stream produced")[0].split())  # which is whole logs
    if isinstance(error, ValueError):  # n_jobs=0
        return UserError(f"hydra.launcher: {said}")
    return EnvironmentFault(f"the launcher gave up ({type(error).__name__}: {said}); jobs that were sent go on, "
                            "finished steps are kept, and the same command goes on from there")


def _is_hydras(error: BaseException) -> bool:
    """Whether an exception was raised by Hydra's own code, which puts some mistakes as plain ValueErrors."""
    return isinstance(error, ValueError | TypeError) and _raised_in(error).startswith(("hydra.", "omegaconf."))


def _raised_in(error: BaseException) -> str:
    """The name of the module that raised an exception."""
    module, trace = "", error.__traceback__
    while trace:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return module


def refuse_strangers(config: Any, conf: Path) -> None:
    """Raise UserError for a key that was added (`+key=value`) but that nothing reads."""
    from whisper_factory.schema import Composition

    known = list(_fields(Composition, ""))
    for key in _leaves(config, ""):
        if not any(f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.") for name in known):
            raise UserError(f"unknown setting '{key}'; {choices(key, _near_settings(key, conf))}")


def _leaves(config: Any, prefix: str) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _missing(error: Any, conf: Path) -> UserError:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return UserError(f"no configuration named '{name}'; leave --config-name out")
    if group == recipes.GROUP:
        return recipes.refuse(name)
    if plugins := PLUGINS.get(group):
        name = name.removeprefix("submitit_")  # what our slurm and local are made from
        if name not in plugins:
            return UserError(f"unknown {group} '{name}'; {choices(name, ['basic', *plugins])}")
        plugin, extra = plugins[name]
        return UserError(f"{group}={name} needs {plugin}, which is not installed; "
                         f"pip install 'whisper-factory[{extra}]'")
    if group not in _groups(conf):
        return UserError(f"unknown {group} '{name}'; is the plugin that has it installed?")
    return UserError(f"unknown {group} '{name}'; {choices(name, members(conf, group))}")


def _reworded(message: str, outer: str, conf: Path) -> str:
    refused = re.search(r"Could not override '([^'@]+)", outer)
    if refused:
        return f"unknown setting '{refused[1]}'; {choices(refused[1], _near_settings(refused[1], conf))}"
    if "LexerNoViableAlt" in message:
        example = "\"outputs='~/my engines'\""
        return f"cannot read {outer.splitlines()[0]!r}; quote a value that has special characters: {example}"
    stranger = re.match(r"Key '\S+' not in '\w+'", message)
    key = re.search(r"full_key: (\S+)", message)
    if stranger and key:
        return f"unknown setting '{key[1]}'; {choices(key[1], _near_settings(key[1], conf))}"
    first = " ".join(line.strip() for line in message.splitlines() if line.strip())
    said = re.sub(r"\s*(full_key|object_type|reference_type)[:=].*", "", first)
    return f"{key[1]}: {said}" if key else said


def _groups(conf: Path) -> list[str]:
    return sorted(path.name for path in conf.iterdir() if path.is_dir() and path.name != "hydra")


def members(conf: Path, group: str) -> list[str]:
    """The members of a configuration group."""
    return sorted(path.name.removesuffix(".yaml") for path in (conf / group).glob("*.yaml"))


def _near_settings(key: str, conf: Path) -> list[str]:
    """The keys a misspelt one may have meant: its group's fields, or else the groups and the plain settings."""
    from whisper_factory.schema import Composition

    known, group = list(_fields(Composition, "")), key.partition(".")[0]
    inside = [name for name in known if name.startswith(f"{group}.")]
    return inside or [*_groups(conf), *(name for name in known if name.partition(".")[0] not in _groups(conf))]


def _fields(kind: Any, prefix: str) -> Iterator[str]:
    hints = get_type_hints(kind)
    for entry in fields(kind):
        inner = next((part for part in (hints[entry.name], *get_args(hints[entry.name])) if is_dataclass(part)), None)
        if inner and not str(hints[entry.name]).startswith("list"):
            yield from _fields(inner, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}"
