"""Recipes: committed compositions, one YAML file each, and the locks beside them.

They live outside conf/, since they change on their own schedule: in recipes/ of the working directory (a user's own,
which win), and in the project's own. Each becomes a member of the Hydra group `recipe`.
"""

from __future__ import annotations

from pathlib import Path

from whisper_factory.errors import UserError

GROUP = "recipe"
HEADER = "# @package _global_"  # a file without it is somebody else's
LOCK_SUFFIX = ".lock"


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
    return found()[name].with_suffix(LOCK_SUFFIX)


def register() -> None:
    """Make every recipe a member of its group.

    Raises:
        UserError: a file that is no YAML mapping.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    for name, path in found().items():
        try:
            node = OmegaConf.load(path)
        except Exception as error:  # yaml's many kinds
            raise UserError(f"recipe '{path}' cannot be read: {' '.join(str(error).split())}") from error
        ConfigStore.instance().store(name=name, node=node, group=GROUP, package="_global_", provider=str(path))


def _is_recipe(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().rstrip() == HEADER
    except OSError:
        return False
