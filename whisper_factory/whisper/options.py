"""What to ask of an engine, and whether it can do that. Imports no numpy: mistakes are told at once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from whisper_factory.engine_spec import ENGINE_FILE, PADDING_STRATEGIES, EngineSpec, PaddingStrategy
from whisper_factory.errors import UserError, choices
from whisper_factory.whisper.languages import resolve_language
from whisper_factory.whisper.tokenizer import TASKS

KIT_SCRIPT = "build.sh"  # in a kit that builds its engine on the device


@dataclass(frozen=True)
class Options:
    """What to ask of an engine. None: what the engine was built for, or finds out."""

    num_beams: int = 1  # 1: greedy
    max_new_tokens: int | None = None
    language: str | None = None  # its code or English name; None: detected in each clip's first window
    task: str = "transcribe"  # or translate: into English
    padding_strategy: PaddingStrategy | None = None
    batch_size: int | None = None  # windows at once


def engine_directory(directory: Path) -> Path:
    """The engine of a composition's directory; a directory that is none is returned as it is.

    Raises:
        UserError: a build kit whose engine is not built yet.
    """
    inside = directory / "engine"
    if (directory / ENGINE_FILE).exists():
        return directory
    if not (inside / ENGINE_FILE).exists() and (directory / KIT_SCRIPT).exists():
        raise UserError(f"'{directory}' is a build kit, its engine is not built yet; on the device it is for, run: "
                        f"bash {shlex.quote(str(directory / KIT_SCRIPT))}")
    return inside if (inside / ENGINE_FILE).exists() else directory


def check(options: Options, spec: EngineSpec) -> None:
    """Raise UserError for options that this engine cannot follow."""
    profile = spec.profile
    for name, asked, most, key in (
        ("num_beams", options.num_beams, profile.max_beam_width, "max_beam_width"),
        ("max_new_tokens", options.max_new_tokens, profile.max_new_tokens, "max_new_tokens"),
        ("batch_size", options.batch_size, profile.max_batch_size, "max_batch_size"),
    ):
        if asked is not None and not 1 <= asked <= most:
            raise UserError(f"{name}={asked}: this engine takes 1 to {most}; ask for that, or build one with "
                            f"profile.{key}={max(asked, 1)}")
    strategy = options.padding_strategy
    if strategy is not None and strategy not in PADDING_STRATEGIES:
        raise UserError(f"unknown padding_strategy '{strategy}'; {choices(strategy, PADDING_STRATEGIES)}")
    if options.task not in TASKS:
        raise UserError(f"unknown task '{options.task}'; {choices(options.task, TASKS)}")
    sizes = spec.dimensions
    language = options.language and resolve_language(options.language, sizes.num_languages)
    if not sizes.is_multilingual:
        if options.task == "translate":
            raise UserError(f"{spec.model} cannot translate: it is English-only; leave the task out, or build a "
                            f"multilingual model{_sibling(spec)}")
        if language not in (None, "en"):
            raise UserError(f"{spec.model} cannot hear language '{options.language}': it is English-only; leave the "
                            f"language out, or build a multilingual model{_sibling(spec)}")


def _sibling(spec: EngineSpec) -> str:
    """The multilingual model beside an English-only one, as an override."""
    return f" (model={spec.model.removesuffix('.en')})" if spec.model.endswith(".en") else ""


def longest_answer(options: Options, spec: EngineSpec, prompt: int) -> int:
    """The most tokens a window may get, <|endoftext|> counted: OpenAI's limit, or less by engine or options."""
    context = spec.dimensions.n_text_ctx
    most = min(spec.profile.max_new_tokens, context // 2, context - prompt)
    return most if options.max_new_tokens is None else min(most, options.max_new_tokens)
