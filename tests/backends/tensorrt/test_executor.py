"""TensorRT's runtime as it is driven: over a stand-in that checks what it is given and computes with the graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.backends.tensorrt.making import declared, graphs
from tests.backends.tensorrt.runtime import FakeCuda, FakeEngine, module
from whisper_factory.backends import tensorrt
from whisper_factory.backends.tensorrt import adapter, shapes
from whisper_factory.backends.tensorrt.executor import TensorRTExecutor
from whisper_factory.backends.tensorrt.flavours import FULL, RTX, Flavour
from whisper_factory.backends.tensorrt.session import TensorRTEngine
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.whisper.beam import BeamSearch
from whisper_factory.whisper.greedy import Greedy
from whisper_factory.whisper.search import Search, Suppression, run

MEL = np.random.default_rng(6).standard_normal((2, 80, 850), dtype=np.float32)


class Machine:
    """An engine on a stand-in GPU."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, flavour: Flavour = RTX) -> None:
        self.cuda, self.engines = FakeCuda(), list[FakeEngine]()
        fake = module(shapes.ranges(declared()), self.cuda, self.engines)
        monkeypatch.setattr(adapter, "_import", lambda flavour: fake)
        for stage in ("encoder", "decoder"):
            (directory / f"{stage}.engine").write_bytes(str(directory / f"{stage}.onnx").encode())
        self.executor = TensorRTExecutor(directory, flavour, self.cuda)
        self.engine = TensorRTEngine(declared(), self.cuda, self.executor)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs(declared(), tmp_path_factory.mktemp("graphs"))


class Nothing(Suppression):
    """Any token may be chosen."""

    def __init__(self) -> None:
        self._always = self._at_first = np.zeros(0, np.int64)


def searched(engine: TensorRTEngine, search: Search) -> None:
    run(engine.encode(MEL), np.array([[50257, 50362], [50257, 7]]), Nothing(), search)


@pytest.mark.parametrize("flavour", [RTX, FULL])
def test_it_hears_what_the_graphs_hear(directory: Path, monkeypatch: pytest.MonkeyPatch, flavour: Flavour) -> None:
    """Greedy and beam, to the bit, with most steps from a CUDA graph."""
    machine, alone = Machine(directory, monkeypatch, flavour), tensorrt.load(directory, 1)
    for make in (lambda: Greedy(50256, [20, 20]), lambda: BeamSearch(3, 50256, [20, 20])):
        found, expected = make(), make()
        searched(machine.engine, found)
        searched(alone, expected)
        assert found.results() == expected.results()
    assert len(machine.cuda.launched) > 25
    assert machine.engines[1].runs < 15


def test_one_graph_serves_every_step_of_every_window(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts run between the windows, in a context of their own, and change nothing of it."""
    machine = Machine(directory, monkeypatch)
    for _ in range(3):
        utterance = machine.engine.encode(MEL)
        utterance.decode(np.array([[50257, 50362]] * 2))
        for token in range(10):
            utterance.decode(np.full((2, 1), token))
    assert machine.cuda.launched.count(1) == 28  # of 30 steps, all but the first two
    assert len(machine.cuda.launched) == 30  # and the encoder and the prompt, the third time


@pytest.mark.parametrize("hindrance", ["asked", "tried"])
def test_what_cannot_be_captured_is_run_each_time(directory: Path, monkeypatch: pytest.MonkeyPatch, hindrance: str
                                                  ) -> None:
    machine = Machine(directory, monkeypatch)
    machine.cuda.failing = hindrance == "tried"
    for engine in machine.engines:
        engine.capturable = hindrance == "tried"
    utterance = machine.engine.encode(MEL)
    for token in range(5):
        utterance.decode(np.full((2, 1), token))
    assert machine.cuda.launched == []
    assert machine.engines[1].runs == 5


def test_contexts_share_one_piece_of_memory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(directory, monkeypatch)
    contexts = [context for engine in machine.engines for context in engine.contexts]
    assert len(contexts) == 3
    assert len({context.memory for context in contexts}) == 1
    assert contexts[0].memory is not None
    assert contexts[0].memory[1] == 2000


def test_what_tensorrt_refuses(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(directory, monkeypatch)
    machine.engines[0].ranges = {"mel": ((1, 80, 750), (1, 80, 750), (1, 80, 750))}
    with pytest.raises(UserError, match=r"the encoder was not built for mel of shape \(2, 80, 850\)"):
        machine.engine.encode(MEL)
    machine = Machine(directory, monkeypatch)
    machine.engines[0].broken = True
    with pytest.raises(EnvironmentFault, match=r"could not run the encoder on mel .*: it did not say why"):
        machine.engine.encode(MEL)
    (directory / "encoder.engine").write_bytes(b"damaged")
    with pytest.raises(EnvironmentFault, match=r"refused '.*encoder\.engine': the plan is damaged"):
        TensorRTExecutor(directory, RTX, FakeCuda())
