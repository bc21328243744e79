"""Command-line flags that more than one command has, and mistakes in them told in one line."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, NoReturn

from whisper_factory.errors import UserError, choices

if TYPE_CHECKING:
    from whisper_factory.whisper.options import Options

LONGEST = "longest"  # upstream's name for what `nopad` is here: a batch's windows are as long as its longest needs


class Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the flags)")

    def names(self) -> list[str]:
        """Every long flag, with its dashes."""
        return [option for action in self._actions for option in action.option_strings if len(option) > 2]

    def parse(self, arguments: list[str] | None) -> argparse.Namespace:
        """Parse; a flag that is not known is answered with those that are.

        Raises:
            UserError: the flags are not what the command takes.
        """
        known, unknown = self.parse_known_args(arguments)
        if unknown:
            wrong = unknown[0].partition("=")[0]
            raise UserError(f"unknown flag '{wrong}'; {choices(wrong, self.names())}")
        return known


def add_options(flags: argparse.ArgumentParser) -> None:
    """What can be asked of an engine: the fields of `options.Options`, and its threads."""
    add = flags.add_argument
    add("--padding_strategy", metavar="HOW", help="max: pad each clip to the engine's length; nopad or longest: the "
        "window follows the longest clip of a batch; trim: cut longer clips (default: the engine's)")
    add("--max_new_tokens", type=int, metavar="N", help="most tokens a window may get (default: the engine's); "
        "TensorRT-LLM pins memory in proportion: lower it where a Jetson reports that it cannot")
    add("--num_beams", type=int, default=1, metavar="N", help="width of the beam search (default: 1, greedy)")
    add("--language", metavar="CODE", help="spoken language, multilingual models only (default: detected)")
    add("--task", default="transcribe", metavar="TASK", help="transcribe (default), or translate into English")
    add("--batch_size", type=int, metavar="N", help="windows at once (default: the engine's most)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: the backend's choice)")


def options(wanted: argparse.Namespace) -> Options:
    """What was asked for by the flags of `add_options`.

    Raises:
        UserError: a number of threads below 1.
    """
    from whisper_factory.whisper.options import Options

    if wanted.threads is not None and wanted.threads < 1:
        raise UserError(f"--threads {wanted.threads} is not a number of threads; choices: 1 or more")
    asked = {entry.name: getattr(wanted, entry.name) for entry in dataclasses.fields(Options)}
    if asked["padding_strategy"] == LONGEST:
        asked["padding_strategy"] = "nopad"
    return Options(**asked)
