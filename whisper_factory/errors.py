"""The errors a user can meet. Each is one line: what is wrong, the valid choices, what to do.

Exit codes everywhere: 0 done, 1 our bug, 2 the user's mistake, 3 a missed gate, 4 the environment.
"""

from __future__ import annotations

from collections.abc import Iterable


class FactoryError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""

    exit_code = 1


class UserError(FactoryError):
    """Something the user asked for cannot be done; the message says what to ask for instead."""

    exit_code = 2


class GateMissed(FactoryError):
    """The engine was built, and kept, but missed a threshold of its validation."""

    exit_code = 3


class EnvironmentFault(FactoryError):
    """The machine could not do it: no network, disk full, a child process that failed."""

    exit_code = 4


def choices(wrong: str, valid: Iterable[str]) -> str:
    """The tail of an error about a name: the nearest valid one, if any is near, then all of them."""
    import difflib  # here, as most runs have no such error

    names = [str(name) for name in valid]
    near = difflib.get_close_matches(str(wrong), names, n=1)
    suggestion = f"did you mean '{near[0]}'? " if near else ""
    return f"{suggestion}choices: {', '.join(names)}"
