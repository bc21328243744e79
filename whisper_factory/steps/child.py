"""NumPy's work in a process of its own, as validation listens.

There NumPy's BLAS has one thread: this process's own threads share the work by windows and layers, in a fixed order, so
that the sums, and with them the bytes, are the same however many there are.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from whisper_factory.errors import EnvironmentFault, GateMissed, UserError
from whisper_factory.progress import Progress
from whisper_factory.steps.children import follow

ONE_THREAD = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
CHILD = "import sys; sys.path[:] = {path!r}; from {module} import main; sys.exit(main())"


def ask(module: str, request: dict[str, Any], answer: Path, done: re.Pattern[str], progress: Progress, unit: str,
        total: int, what: str) -> None:
    """Have a module's `main` answer a request.

    Args:
        answer: where it leaves its answer; the request lies beside it meanwhile.
        done: the lines by which it says that one more unit is done.
        what: it is, in an error.

    Raises:
        UserError, GateMissed: as the child says.
        EnvironmentFault: the child failed; carries its last lines.
    """
    asked = answer.with_name("asked.json")
    asked.write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-c", CHILD.format(path=sys.path, module=module), str(asked), str(answer)]
    code, lines = follow([command], done, progress, unit, total, {**os.environ, **ONE_THREAD})
    asked.unlink()
    for known in (UserError, GateMissed):
        if code == known.exit_code and lines:
            raise known(lines[-1].removeprefix("error: "))
    if code != 0:
        raise EnvironmentFault(f"the {what} failed (exit code {code}): {' | '.join(lines)}")
