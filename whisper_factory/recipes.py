"""Recipes: committed compositions, one YAML file each, and the locks beside them.

They live outside conf/, since they change on their own schedule: in recipes/ of the working directory (a user's own,
which win), and in the project's own. Each becomes a member of the Hydra group `recipe`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_factory.errors import UserError, choices

GROUP = "recipe"
HEADER = "# @package _global_"  # a file without it is somebody else's
LOCK_SUFFIX = ".lock"
# Of one run, not of the engine it makes.
RUN_ONLY = ("outputs", "store", "dry_run", "stop_after", "quiet", "lock", "verify", "objectives")


def project_directory() -> Path:
    """The project's recipes: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "recipes"


def found() -> dict[str, Path]:
    """Every recipe by name; a file of the working directory's recipes/ hides the project's of the same name."""
    named: dict[str, Path] = {}
    for directory in (project_directory(), Path("recipes").absolute()):
        for path in sorted(directory.glob("*.yaml")):
            if _is_recipe(path):
                named[path.stem] = path
    return named


def lock_path(name: str) -> Path:
    """Where the lock of a recipe is, or would be written."""
    return found()[name.removesuffix(".yaml")].with_suffix(LOCK_SUFFIX)  # Hydra takes both names


def register() -> None:
    """Make every recipe a member of its group. One that cannot be used is none, until it is asked for by name."""
    from hydra.core.config_store import ConfigStore

    for name, path in found().items():
        with suppress(UserError):
            ConfigStore.instance().store(name=name, node=load(path), group=GROUP, package="_global_",
                                         provider=str(path))


def load(path: Path) -> Any:
    """What a recipe's file says.

    Raises:
        UserError: it is no YAML mapping, or sets what belongs to a run and not to an engine.
    """
    from omegaconf import DictConfig, OmegaConf

    try:
        node = OmegaConf.load(path)
    except Exception as error:  # yaml's many kinds
        raise UserError(f"recipe '{path}' cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(node, DictConfig):
        raise UserError(f"recipe '{path}' is not a mapping of settings")
    if runs := [key for key in node if key in RUN_ONLY]:
        raise UserError(f"recipe '{path}' sets {', '.join(map(str, runs))}, which the command line says: a recipe "
                        "declares an engine, not a run")
    return node


def refuse(name: str) -> UserError:
    """Why a recipe that was asked for is none."""
    name = name.removesuffix(".yaml")
    path = found().get(name)
    if path is None:
        stranger = Path("recipes", f"{name}.yaml")
        if stranger.is_file():
            return UserError(f"'{stranger}' is no recipe; its first line must be '{HEADER}'")
        return UserError(f"unknown recipe '{name}'; {choices(name, found())}")
    try:
        load(path)
    except UserError as error:
        return error
    return UserError(f"recipe '{path}' appeared only now; run again")


def _is_recipe(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            return stream.readline().rstrip() == HEADER
    except OSError:
        return False
