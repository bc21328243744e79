"""All of a model, layer after layer: every linear is rounded on what the layers before it, rounded, give it.

Two models are gone through side by side, for all windows at once: the exact one, and the one that is rounded so far.
Each linear's inputs are the rounded one's, the outputs wanted of it the exact one's (true-sequential order). A layer
that adds to the residual is also asked for what the residual lacks.
Memory: of all windows one layer's activations, and what the exact model makes of three blocks at the positions that
count; never the attention of more than a window for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from whisper_factory.calibration import fitting, forward, parts
from whisper_factory.calibration.exact import Exact
from whisper_factory.calibration.fitting import Method
from whisper_factory.calibration.parts import EXACT, ROUNDED, Models, Part, Unit, Wanted
from whisper_factory.calibration.rounding import Rounder
from whisper_factory.calibration.workers import Workers
from whisper_factory.engine_spec import Precision
from whisper_factory.progress import Advance
from whisper_factory.quantization import weight_only
from whisper_factory.quantization.compensated import Rounded
from whisper_factory.whisper.dimensions import Dimensions

Floats = NDArray[np.float32]
Residual = Callable[[int], Floats]  # of a unit, computed when it is asked for
R = TypeVar("R")

ANCHOR = 50  # states of silence that the decoder sees after a short window's
SILENCE_COUNTS = 0.25  # a position of the silent window, against 1 of another
EVERY = 2  # of the encoder's positions one is counted: neighbours say the same
TEXTS = 24  # that are multiplied at once: so few rows are slow
WINDOWS, UNITS = 16, 3  # of which moments are taken at once: a gram is large
DECODER_RIDGE = 0.3  # there are far fewer tokens than positions of audio
INT4 = Precision("int4", 4, "float16")


class Window(NamedTuple):
    """One window of the calibration: log-mel [n_mels, frames], and what the decoder is fed with it."""

    name: str
    mel: Floats
    texts: tuple[NDArray[np.int64], ...]  # tokens with prompt and end; none: silence, of which the end anchor is made


@dataclass(frozen=True)
class Calibrated:
    """The integers and scales of every linear of 4 bits, and the biases that changed, by OpenAI's names."""

    rounded: dict[str, Rounded]
    biases: dict[str, Floats]


def calibrate(tensors: Mapping[str, Floats], dimensions: Dimensions, windows: Sequence[Window], method: Method,
              advance: Advance = lambda amount: None, precision: Precision = INT4) -> Calibrated:
    """Round every linear of a model, in the order in which data flows through them.

    Args:
        tensors: the exact model, float32, under OpenAI's names.
        windows: one of silence among them, of 3000 frames.
        precision: of 4 bits; says which neighbours share a scale, and which layers keep 8 bits: those are rounded as
            they are.
        advance: told of each linear.

    Raises:
        UserError: activations that are not finite; a covariance that cannot be used.
    """
    made = dict(tensors)
    for name in precision.keep:
        made[f"{name}.weight"] = weight_only.dequantize(*weight_only.quantize(tensors[f"{name}.weight"], 8))
    models = Models((tensors, made), ([], []))
    with Workers() as workers:
        rounder = Rounder(models, method, precision, advance, workers)
        run = _Pass(models, dimensions, windows, rounder, workers)
        run.encoder()
        run.decoder()
    return Calibrated(rounder.found, rounder.biases)


class _Pass:
    def __init__(self, models: Models, dimensions: Dimensions, windows: Sequence[Window], rounder: Rounder,
                 workers: Workers) -> None:
        self.models, self.dimensions, self.windows = models, dimensions, windows
        self.rounder, self.workers = rounder, workers
        self.exact = Exact(models, workers)
        self.residual: Residual  # of the rounded model, as far as it is
        self.heard = [Unit((window.name,), (window.mel.shape[1] // 2,), slice(place % EVERY, None, EVERY),
                           1.0 if window.texts else SILENCE_COUNTS) for place, window in enumerate(windows)]
        self.read, self.embedded = _texts(windows, models.tensors[EXACT])

    def encoder(self) -> None:
        """Round the encoder; both models' states of each window, as the decoder sees them, are left in `models`, and
        the exact one is in the decoder."""
        sizes, tensors = self.dimensions, self.models.tensors
        first = list(self.workers.map(lambda window: forward.stem(window.mel, tensors[EXACT]), self.windows))
        blocks = [parts.encoder_block(self.models, sizes, layer) for layer in range(sizes.n_audio_layer)]
        self.rounder.over(self.heard, WINDOWS, fitting.RIDGE)
        self.exact.feed(first, self.heard, blocks)
        self.residual = first.__getitem__
        for layer, block in enumerate(blocks):
            wanted = self.exact.block()
            if layer + 1 == len(blocks):
                self._states(EXACT, self.exact.end)
                self.exact.feed(self.embedded, self.read, self._decoder_blocks())
            self._block(block, wanted)
        self._states(ROUNDED, self.residual)

    def decoder(self) -> None:
        """Round what the decoder's attention makes of states, then the decoder, on every text of every window."""
        names = [f"decoder.blocks.{layer}.cross_attn.{part}" for layer in range(self.dimensions.n_text_layer)
                 for part in ("key", "value")]
        exact, rounded = self.models.states
        self.residual = self.embedded.__getitem__
        self.rounder.inputs(names, lambda place: exact[place][self.heard[place].rows], rounded)
        self.rounder.over(self.read, UNITS, DECODER_RIDGE)
        for block in self._decoder_blocks():
            self._block(block, self.exact.block())

    def _decoder_blocks(self) -> list[list[Part]]:
        return [parts.decoder_block(self.models, self.dimensions, layer)
                for layer in range(self.dimensions.n_text_layer)]

    def _states(self, which: int, residual: Residual) -> None:
        """What the decoder sees of each window, behind all of the encoder's blocks."""
        own = self.models.tensors[which]
        states = self._each(lambda place: forward.layer_norm(residual(place), own, "encoder.ln_post"))
        silence = next(place for place, window in enumerate(self.windows) if not window.texts)
        anchor = states[silence][-ANCHOR:]
        self.models.states[which].extend(np.concatenate([part, anchor]) if len(part) < self.dimensions.n_audio_ctx
                                         else part for part in states)

    def _block(self, block: list[Part], wanted: Sequence[Sequence[Wanted]]) -> None:
        """Round a block's linears, and go on behind it."""
        for number, part in enumerate(block):
            self._part(part, [one[number] for one in wanted])

    def _part(self, part: Part, wanted: Sequence[Wanted]) -> None:
        made = self.models.tensors[ROUNDED]

        def begin(place: int) -> tuple[Floats, Floats]:
            x = self.residual(place)
            return x, forward.layer_norm(x, made, part.norm)

        stream, normal = zip(*self._each(begin), strict=True)
        self.residual = stream.__getitem__  # what the part before has left may go
        self.rounder.inputs(part.into, lambda place: wanted[place].normal, normal)
        inputs = self._each(lambda place: part.middle(normal[place], self.rounder.units[place], ROUNDED))
        self.rounder.adding(part.out, wanted, inputs, stream)
        self.residual = lambda place: stream[place] + forward.linear(inputs[place], made, part.out)

    def _each(self, function: Callable[[int], R]) -> list[R]:
        return list(self.workers.map(function, range(len(self.rounder.units))))


def _texts(windows: Sequence[Window], tensors: Mapping[str, Floats]) -> tuple[list[Unit], list[Floats]]:
    """All texts, TEXTS and more in a unit, none of whose windows is in another's; and what the first block sees."""
    several: list[list[tuple[int, NDArray[np.int64]]]] = []
    for place, window in enumerate(windows):
        if not several or len(several[-1]) >= TEXTS:
            several.append([])
        several[-1] += [(place, tokens) for tokens in window.texts]
    units = [Unit(tuple(windows[place].name for place, _ in some),
                  tuple(int(end) for end in np.cumsum([len(tokens) for _, tokens in some])), slice(None),
                  windows=tuple(place for place, _ in some)) for some in several if some]
    return units, [np.concatenate([forward.embed(tokens, tensors) for _, tokens in some]) for some in several if some]
