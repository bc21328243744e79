from __future__ import annotations

import json
from pathlib import Path

from tests.store.debug import child


def test_fifty_runs_killed_at_random_moments(tmp_path: Path) -> None:
    """What is in the store is whole after each; runs after them complete, with an undisturbed run's bytes."""
    found = json.loads(child("killing:kill_fifty", tmp_path, mounts=True))
    assert found["killed"] == 50
    assert found["steps_seen"] > 10  # not all were killed before they had done anything
    assert (found["later"], found["differing"]) == (10, 0)
