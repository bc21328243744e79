"""All of a model, layer after layer: every linear is rounded on what the layers before it, rounded, give it.

Two models are gone through side by side, for all windows at once: the exact one, and the one that is rounded so far.
Each linear's inputs are the rounded one's, the outputs wanted of it the exact one's (true-sequential order). A layer
that adds to the residual is also asked for what the residual lacks. The exact model is a block ahead: it is what there
is to do while a layer is rounded, which takes one thread.
Memory: of all windows one layer's activations, and what the exact model makes of two blocks at the positions that
count; never the attention of more than a window for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_factory.calibration import fitting, forward, parts
from whisper_factory.calibration.fitting import Method
from whisper_factory.calibration.parts import EXACT, ROUNDED, Models, Part, Unit, Wanted
from whisper_factory.calibration.rounding import Rounder
from whisper_factory.calibration.workers import LATER, Workers
from whisper_factory.engine_spec import Precision
from whisper_factory.progress import Advance
from whisper_factory.quantization import weight_only
from whisper_factory.quantization.compensated import Rounded
from whisper_factory.whisper.dimensions import Dimensions

Floats = NDArray[np.float32]
Going = list[Future[tuple[list[Wanted], Floats]]]  # a block of the exact model, unit by unit

ANCHOR = 50  # states of silence that the decoder sees after a short window's
SILENCE_COUNTS = 0.25  # a position of the silent window, against 1 of another
EVERY = 2  # of the encoder's positions one is counted: neighbours say the same
WINDOWS, TEXTS = 8, 16  # of which moments are taken at once: a gram is large
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
        self.units: list[Unit] = []

    def encoder(self) -> None:
        """Round the encoder; both models' states of each window, as the decoder sees them, are left in `models`."""
        sizes, tensors = self.dimensions, self.models.tensors
        self.units = [Unit((window.name,), (window.mel.shape[1] // 2,), slice(place % EVERY, None, EVERY),
                           1.0 if window.texts else SILENCE_COUNTS) for place, window in enumerate(self.windows)]
        self.rounder.over(self.units, WINDOWS, fitting.RIDGE)
        first = list(self.workers.map(lambda window: forward.stem(window.mel, tensors[EXACT]), self.windows))
        blocks = [parts.encoder_block(self.models, sizes, layer) for layer in range(sizes.n_audio_layer)]
        ends = self._through(first, blocks, self._ahead(first, blocks[0]))

        silence = next(place for place, window in enumerate(self.windows) if not window.texts)
        for which, stream in enumerate(ends):
            own = tensors[which]
            states = [forward.layer_norm(x, own, "encoder.ln_post") for x in stream]
            anchor = states[silence][-ANCHOR:]
            self.models.states[which].extend(np.concatenate([part, anchor]) if len(part) < sizes.n_audio_ctx else part
                                             for part in states)

    def decoder(self) -> None:
        """Round what the decoder's attention makes of states, then the decoder, on every text of every window."""
        sizes, embedded = self.dimensions, self.models.tensors[EXACT]
        fed = [(place, tokens) for place, window in enumerate(self.windows) for tokens in window.texts]
        several = [fed[start : start + TEXTS] for start in range(0, len(fed), TEXTS)]
        units = [Unit(tuple(self.windows[place].name for place, _ in some),
                      tuple(int(end) for end in np.cumsum([len(tokens) for _, tokens in some])), slice(None),
                      windows=tuple(place for place, _ in some)) for some in several]
        first = [np.concatenate([forward.embed(tokens, embedded) for _, tokens in some]) for some in several]
        blocks = [parts.decoder_block(self.models, sizes, layer) for layer in range(sizes.n_text_layer)]
        heard, self.units = self.units, units
        going = self._ahead(first, blocks[0])  # while the next layers, of the encoder's units, are rounded
        names = [f"decoder.blocks.{layer}.cross_attn.{part}" for layer in range(sizes.n_text_layer)
                 for part in ("key", "value")]
        exact, rounded = self.models.states
        self.rounder.inputs(names, lambda place: exact[place][heard[place].rows], rounded)
        self.rounder.over(units, 1, DECODER_RIDGE)
        self._through(first, blocks, going)

    def _ahead(self, stream: Sequence[Floats], block: list[Part]) -> Going:
        """Begin with a block of the exact model: for when there is nothing else to do."""

        def begin(x: Floats, unit: Unit) -> Future[tuple[list[Wanted], Floats]]:
            return self.workers.start(lambda: parts.exactly(x, unit, block, self.models), LATER)

        return [begin(x, unit) for x, unit in zip(stream, self.units, strict=True)]

    def _through(self, first: Sequence[Floats], blocks: Sequence[list[Part]], going: Going
                 ) -> tuple[list[Floats], list[Floats]]:
        """Round blocks; the exact model, which is `going` through the first, and the rounded one behind them."""
        stream, ends = list(first), list[Floats]()
        for place, block in enumerate(blocks):
            done = [future.result() for future in going]
            ends = [end for _, end in done]
            going = self._ahead(ends, blocks[place + 1]) if place + 1 < len(blocks) else []
            for number, part in enumerate(block):
                stream = self._part(part, [wanted[number] for wanted, _ in done], stream)
        return ends, stream

    def _part(self, part: Part, wanted: Sequence[Wanted], stream: list[Floats]) -> list[Floats]:
        """Round a part's linears; the rounded model's residual behind it."""
        made = self.models.tensors[ROUNDED]
        normal = self._each(lambda place: forward.layer_norm(stream[place], made, part.norm))
        self.rounder.inputs(part.into, lambda place: wanted[place].normal, normal)
        inputs = self._each(lambda place: part.middle(normal[place], self.units[place], ROUNDED))
        self.rounder.adding(part.out, wanted, inputs, stream)
        return self._each(lambda place: stream[place] + forward.linear(inputs[place], made, part.out))

    def _each(self, function: Callable[[int], Floats]) -> list[Floats]:
        return list(self.workers.map(function, range(len(self.units))))
