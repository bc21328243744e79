"""How long a calibration is said to take."""

from __future__ import annotations

import pytest

from tests.compositions import composition
from whisper_factory.calibration import clips, duration
from whisper_factory.whisper.dimensions import Dimensions


@pytest.mark.parametrize(("model", "said"), [
    ("tiny.en", "about 50 s"), ("base", "about 2 minutes"), ("small.en", "about 6 minutes"), ("debug", "about 10 s"),
])
def test_with_the_bundled_clips(model: str, said: str) -> None:
    """Measured on two cores: 42 to 51 s and 110 s; small.en's is what its work comes to."""
    sizes = Dimensions(**vars(composition(f"model={model}").model.dimensions))
    assert duration(sizes, len(clips.bundled_for(sizes))) == said
