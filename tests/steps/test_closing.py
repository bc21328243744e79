from __future__ import annotations

import pytest

from whisper_factory.steps.closing import Closing


class Held(Closing):
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_closed_by_the_end_of_a_block_whatever_ends_it() -> None:
    with Held() as held:
        assert held.closed == 0
    assert held.closed == 1
    with pytest.raises(KeyboardInterrupt), held:
        raise KeyboardInterrupt
    assert held.closed == 2
