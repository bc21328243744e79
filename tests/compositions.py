"""Compositions as Hydra makes them from conf/, in this process."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from whisper_factory import recipes
from whisper_factory.job import configuration_directory
from whisper_factory.schema import Composition


def composition(*overrides: str) -> Composition:
    """What the command line would compose, to be changed at will."""
    return deepcopy(_composition(*overrides))


@cache  # a fifth of a second each
def _composition(*overrides: str) -> Composition:
    ConfigStore.instance().store(name="base_schema", node=Composition)
    recipes.register()
    with initialize_config_dir(str(configuration_directory().absolute()), version_base="1.3"):
        composed = OmegaConf.to_object(compose("config", overrides=list(overrides)))
    assert isinstance(composed, Composition)
    return composed


def tiny_en(**changes: Any) -> Composition:
    """`profile=duplex_lowmem model=tiny.en`, with fields changed after the fact ("profile.end_anchor": 0)."""
    made = composition("profile=duplex_lowmem", "model=tiny.en")
    for key, value in changes.items():
        *path, name = key.split(".")
        part: Any = made
        for step in path:
            part = getattr(part, step)
        assert hasattr(part, name), key
        setattr(part, name, value)
    return made
