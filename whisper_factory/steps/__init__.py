"""The steps: one verb a file, each a function of its parameters and inputs that fills one directory.

Every module here has `VERSION` (raised whenever the same inputs would give other bytes) and
`run(step, inputs, out, context)`, and imports nothing heavy until it runs.
"""

from __future__ import annotations

from types import ModuleType

from whisper_factory.steps import build, convert, fetch, keep, kit, pack, reference, validate

STEPS: dict[str, ModuleType] = {
    "fetch": fetch, "keep": keep, "convert": convert, "pack": pack, "kit": kit, "build": build,
    "reference": reference, "validate": validate,
}
