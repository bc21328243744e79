"""All of a model, layer after layer: every linear is rounded on what the layers before it, rounded, give it.

Two streams of activations go through the model side by side, for all windows at once: that of the exact weights and
that of the rounded ones so far. Each linear's inputs are the rounded stream's, the outputs wanted of it the exact
stream's (true-sequential order). A layer that adds to the residual is also asked for what the residual lacks.
Memory: one residual and one layer's activations of all windows, twice; never the attention of more than one window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_factory import threads
from whisper_factory.calibration import fitting, forward
from whisper_factory.calibration.fitting import Method, Moments
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.progress import Advance
from whisper_factory.quantization import weight_only
from whisper_factory.quantization.compensated import Rounded, SingularGram
from whisper_factory.whisper.dimensions import Dimensions

Floats = NDArray[np.float32]

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


class Pair(NamedTuple):
    """What the exact and the rounded model make of one window."""

    exact: Floats
    rounded: Floats


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
    run = _Pass(tensors, dimensions, windows, method, advance, precision)
    states = run.encoder()
    run.decoder(states)
    return Calibrated(run.found, run.biases)


class _Pass:
    def __init__(self, tensors: Mapping[str, Floats], dimensions: Dimensions, windows: Sequence[Window],
                 method: Method, advance: Advance, precision: Precision) -> None:
        self.exact, self.made = tensors, dict(tensors)
        self.dimensions, self.windows, self.method, self.advance = dimensions, windows, method, advance
        self.precision = precision
        for name in precision.keep:
            self.made[f"{name}.weight"] = weight_only.dequantize(*weight_only.quantize(tensors[f"{name}.weight"], 8))
        self.found: dict[str, Rounded] = {}
        self.biases: dict[str, Floats] = {}
        self.names = [window.name for window in windows]
        self.weights = [1.0 if window.texts else SILENCE_COUNTS for window in windows]
        self.every, self.together, self.ridge = EVERY, WINDOWS, fitting.RIDGE

    def encoder(self) -> list[Pair]:
        """Round the encoder and the cross-attention's keys and values; the decoder's view of each window's states."""
        sizes = self.dimensions
        first = list(threads.ahead(lambda window: forward.stem(window.mel, self.exact), self.windows))
        stream = [Pair(x, x.copy()) for x in first]
        for layer in range(sizes.n_audio_layer):
            block = f"encoder.blocks.{layer}"
            self._self_attention(stream, block, sizes.n_audio_head, causal=False)
            self._mlp(stream, block)
        states = self._each(lambda index: self._normal(stream[index], "encoder.ln_post"))
        silence = next(index for index, window in enumerate(self.windows) if not window.texts)
        anchor = [part[-ANCHOR:] for part in states[silence]]
        states = [Pair(*(np.concatenate([part, end]) for part, end in zip(pair, anchor, strict=True)))
                  if len(pair.exact) < sizes.n_audio_ctx else pair for pair in states]
        names = [f"decoder.blocks.{layer}.cross_attn.{part}" for layer in range(sizes.n_text_layer)
                 for part in ("key", "value")]
        self._fit(names, lambda index: states[index])
        return states

    def decoder(self, states: list[Pair]) -> None:
        """Round the decoder, on every text of every window."""
        fed = [(index, tokens) for index, window in enumerate(self.windows) for tokens in window.texts]
        states, self.names = [states[index] for index, _ in fed], [self.names[index] for index, _ in fed]
        self.weights, self.every, self.together, self.ridge = [1.0] * len(fed), 1, TEXTS, DECODER_RIDGE
        heads, stream = self.dimensions.n_text_head, []
        for _, tokens in fed:
            x = forward.embed(tokens, self.exact)
            stream.append(Pair(x, x.copy()))
        for layer in range(self.dimensions.n_text_layer):
            block = f"decoder.blocks.{layer}"
            self._self_attention(stream, block, heads, causal=True)
            self._cross_attention(stream, states, block, heads)
            self._mlp(stream, block)

    def _self_attention(self, stream: list[Pair], block: str, heads: int, causal: bool) -> None:
        names = [f"{block}.attn.{part}" for part in ("query", "key", "value")]

        def normal(index: int) -> Pair:
            return self._normal(stream[index], f"{block}.attn_ln")

        def mix(x: Floats, tensors: Mapping[str, Floats]) -> Floats:
            q, k, v = (forward.linear(x, tensors, name) for name in names)
            return forward.attention(q, k, v, heads, causal)

        self._fit(names, normal)
        self._add(stream, f"{block}.attn.out", self._each(lambda index: self._both(normal(index), mix)))

    def _cross_attention(self, stream: list[Pair], states: list[Pair], block: str, heads: int) -> None:
        query, key, value = (f"{block}.cross_attn.{part}" for part in ("query", "key", "value"))

        def normal(index: int) -> Pair:
            return self._normal(stream[index], f"{block}.cross_attn_ln")

        def keys_values(pair: Pair) -> list[tuple[Floats, Floats]]:
            return [(forward.linear(seen, tensors, key), forward.linear(seen, tensors, value))
                    for seen, tensors in zip(pair, (self.exact, self.made), strict=True)]

        windows = {id(pair): pair for pair in states}  # which several texts have in common
        kept = dict(zip(windows, threads.ahead(keys_values, windows.values()), strict=True))

        def mix(index: int) -> Pair:
            return Pair(*(forward.attention(forward.linear(x, tensors, query), k, v, heads)
                          for x, (k, v), tensors in zip(normal(index), kept[id(states[index])],
                                                        (self.exact, self.made), strict=True)))

        self._fit([query], normal)
        self._add(stream, f"{block}.cross_attn.out", self._each(mix))

    def _mlp(self, stream: list[Pair], block: str) -> None:
        name = f"{block}.mlp.0"

        def normal(index: int) -> Pair:
            return self._normal(stream[index], f"{block}.mlp_ln")

        self._fit([name], normal)
        hidden = self._each(lambda index: self._both(
            normal(index), lambda x, tensors: forward.gelu(forward.linear(x, tensors, name))))
        self._add(stream, f"{block}.mlp.2", hidden)

    def _add(self, stream: list[Pair], name: str, inputs: list[Pair]) -> None:
        """Round the linear that adds to the residual, and add it."""
        self._fit([name], lambda index: inputs[index], stream)

        def add(index: int) -> None:
            for x, y, tensors in zip(stream[index], inputs[index], (self.exact, self.made), strict=True):
                x += forward.linear(y, tensors, name)

        for _ in threads.ahead(add, range(len(stream))):
            pass

    def _fit(self, names: list[str], given: Callable[[int], Pair], residual: list[Pair] | None = None) -> None:
        """Round linears that have their inputs in common, but for those that keep 8 bits.

        Args:
            residual: what they add to; they are asked for what its rounded side lacks.
        """
        kept = [name for name in names if name in self.precision.keep]
        self.advance(len(kept))
        names = [name for name in names if name not in kept]
        if not names:
            return

        every = threads.ahead(lambda group: self._moments(names, group, given, residual), self._groups())
        total = next(every)
        for found in every:
            total.add(found)
        if residual is None:
            total.apply({name: (self.exact[f"{name}.weight"], self.exact.get(f"{name}.bias")) for name in names})
        for name, fitted in self._fitted(names, total).items():
            self._keep(name, fitted)
            self.advance(1)

    def _moments(self, names: list[str], group: range, given: Callable[[int], Pair],
                 residual: list[Pair] | None) -> Moments:
        """Of a few windows; of the exact inputs instead of the wanted outputs where nothing is to be added to those."""
        inputs, lacks = [], []
        for index in group:
            rows = slice(index % self.every, None, self.every)
            inputs.append(Pair(*(part[rows] for part in given(index))))
            if not (np.isfinite(inputs[-1].exact).all() and np.isfinite(inputs[-1].rounded).all()):
                raise UserError(f"calibration: what {self.names[index]} gives {names[0]} is not finite; leave the "
                                "clip out of calibration.clips, or get the weights again")
            if residual is not None:
                lacks.append(residual[index].exact[rows] - residual[index].rounded[rows])
        exact, rounded = (np.concatenate(parts) for parts in zip(*inputs, strict=True))
        weight = self.weights[group[0]]
        if residual is None:
            return Moments.of(rounded, {fitting.EXACT: fitting.extended(exact)}, weight)
        wanted = forward.linear(exact, self.exact, names[0])
        wanted += np.concatenate(lacks)
        return Moments.of(rounded, {names[0]: wanted}, weight)

    def _groups(self) -> list[range]:
        """Windows that count as much, a few at once."""
        groups: list[range] = []
        for place, weight in enumerate(self.weights):
            if not groups or len(groups[-1]) == self.together or weight != self.weights[groups[-1][0]]:
                groups.append(range(place, place))
            groups[-1] = range(groups[-1].start, place + 1)
        return groups

    def _keep(self, name: str, fitted: fitting.Fitted) -> None:
        q, scale = fitted.rounded.q, fitted.rounded.scale
        self.made[f"{name}.weight"] = weight_only.dequantize(q, scale)
        self.found[name] = fitted.rounded
        if f"{name}.bias" in self.exact:  # stored as float16, so used as that
            self.biases[f"{name}.bias"] = fitted.bias.astype(np.float16).astype(np.float32)
            self.made[f"{name}.bias"] = self.biases[f"{name}.bias"]

    def _fitted(self, names: list[str], total: Moments) -> dict[str, fitting.Fitted]:
        weights = {name: self.exact[f"{name}.weight"] for name in names}
        try:
            return fitting.fit(weights, total, self.method, self.ridge, self.precision.group_size)
        except SingularGram as error:
            said = f"calibration: {names[0]}: {error}; give calibration.clips more, and other, speech"
            raise UserError(said) from error

    def _each(self, function: Callable[[int], Pair]) -> list[Pair]:
        return list(threads.ahead(function, range(len(self.names))))

    def _normal(self, pair: Pair, name: str) -> Pair:
        return self._both(pair, lambda x, tensors: forward.layer_norm(x, tensors, name))

    def _both(self, pair: Pair, function: Callable[[Floats, Mapping[str, Floats]], Floats]) -> Pair:
        return Pair(function(pair.exact, self.exact), function(pair.rounded, self.made))
