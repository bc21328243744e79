"""Where an engine's time goes, seen from outside."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.whisper.test_generating import encoded, noise, scripted
from tests.whisper.torch_engine import TorchUtterance, tokenizer_of
from tests.whisper.torch_engine import engine as torch_engine
from whisper_factory.stopwatch import Stopwatch
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.transcribe import Transcriber

SLOW = 0.02


def transcriber(multilingual: bool = False) -> Transcriber:
    engine = torch_engine(multilingual=multilingual)
    return Transcriber(engine, tokenizer_of(engine.model.dims))


@pytest.mark.parametrize("options", [Options(max_new_tokens=9), Options(num_beams=3, max_new_tokens=9)])
def test_calls_of_a_clip(options: Options) -> None:
    heard = transcriber()
    plain, = heard.transcribe([noise(3)], options)
    stopwatch = Stopwatch(heard.engine)
    for _ in range(2):  # laps do not add up
        (found,), lap = stopwatch.time(partial(heard.transcribe, [noise(3)], options))
        assert found.tokens == plain.tokens
        assert lap.parts["encoder"].count == lap.parts["prompt"].count == 1
        assert lap.parts["tokens"].count == 8  # of nine tokens, the prompt's step chose the first
        assert "language" not in lap.parts
        assert "generate" not in lap.parts
        assert lap.first_token is not None
        assert lap.parts["encoder"].seconds + lap.parts["prompt"].seconds < lap.first_token < lap.seconds
        assert sum(work.seconds for work in lap.parts.values()) < lap.seconds


def test_the_token_that_tells_the_language_is_no_prompt() -> None:
    heard = transcriber(multilingual=True)
    stopwatch = Stopwatch(heard.engine)
    _, lap = stopwatch.time(partial(heard.transcribe, [noise(2), noise(3)], Options(max_new_tokens=4, batch_size=1)))
    assert (lap.parts["language"].count, lap.parts["prompt"].count, lap.parts["encoder"].count) == (2, 2, 2)
    assert lap.parts["language"].seconds > 0
    _, lap = stopwatch.time(partial(heard.transcribe, [noise(2)], Options(max_new_tokens=4, language="de")))
    assert "language" not in lap.parts
    assert lap.parts["prompt"].count == 1


def test_the_first_token_is_there_when_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decode takes SLOW: the first token comes after one of them, the answer after all."""
    decode = TorchUtterance.decode

    def slow(self: TorchUtterance, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        time.sleep(SLOW)
        return decode(self, tokens)

    monkeypatch.setattr(TorchUtterance, "decode", slow)
    heard = transcriber()
    _, lap = Stopwatch(heard.engine).time(partial(heard.transcribe, [noise(3)], Options(max_new_tokens=6)))
    steps = lap.parts["tokens"]
    assert steps.count > 1
    assert steps.seconds >= SLOW * steps.count
    assert lap.first_token is not None
    assert SLOW <= lap.first_token < lap.seconds - SLOW * steps.count


class Growing:
    """An utterance that decodes under another name, by its own `decode`, and can be split."""

    def __init__(self) -> None:
        self.length = 0

    def decode(self, tokens: int) -> None:
        self.length += tokens

    def decode_best(self, tokens: int) -> None:
        self.decode(tokens)

    def split(self, windows: int) -> Growing:
        other = Growing()
        other.length = self.length
        return other

    @property
    def rows(self) -> int:
        return 1


def test_whatever_makes_an_utterance_longer_decodes() -> None:
    class Engine:
        spec, threads = None, 1

        def encode(self, mel: None) -> Growing:
            return Growing()

    engine: Any = Engine()
    stopwatch = Stopwatch(engine)

    def work() -> None:
        utterance = engine.encode(None)
        utterance.decode_best(3)
        utterance.decode(tokens=1)
        utterance.split(1).decode_best(1)

    _, lap = stopwatch.time(work)
    counts = {kind: done.count for kind, done in lap.parts.items()}
    assert counts == {"encoder": 1, "prompt": 1, "tokens": 2, "other": 1}


def test_an_engine_without_a_stopwatch_is_untouched() -> None:
    watched, other = transcriber(), transcriber()
    Stopwatch(watched.engine)
    assert "encode" in vars(watched.engine)
    assert "encode" not in vars(other.engine)
    utterance = other.engine.encode(np.zeros((1, 80, 24), np.float32))  # type: ignore[union-attr]
    assert not {"decode", "select", "close"} & set(vars(utterance))


def test_a_runtime_that_generates_by_itself() -> None:
    engine, tokenizer = scripted([], [[50260]])
    engine.answers = [encoded(tokenizer, " words")]
    heard = Transcriber(engine, tokenizer)
    (found,), lap = Stopwatch(engine).time(partial(heard.transcribe, [noise(2)]))
    assert found.text == "words"
    assert {kind: work.count for kind, work in lap.parts.items()} == {"language": 1, "generate": 1}
    assert lap.first_token is None
