"""Rounding the linears that have their inputs in common, on moments of all units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whisper_factory.calibration import fitting
from whisper_factory.calibration.fitting import Method, Moments
from whisper_factory.calibration.parts import EXACT, Models, Unit, Wanted
from whisper_factory.calibration.workers import Workers
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.progress import Advance
from whisper_factory.quantization import weight_only
from whisper_factory.quantization.compensated import Rounded
from whisper_factory.quantization.grams import SingularGram

Floats = NDArray[np.float32]


@dataclass
class Rounder:
    """Rounds layer after layer of `models`' rounded model, and keeps what it finds.

    Units, their groups and the ridge are the encoder's first, then the decoder's.
    """

    models: Models
    method: Method
    precision: Precision
    advance: Advance
    workers: Workers
    units: Sequence[Unit] = ()
    groups: Sequence[range] = ()  # of units, of which moments are taken at once
    ridge: float = fitting.RIDGE
    found: dict[str, Rounded] = field(default_factory=dict)
    biases: dict[str, Floats] = field(default_factory=dict)

    def over(self, units: Sequence[Unit], together: int, ridge: float) -> None:
        """From now on moments are of these units, so many at once; a group's units count as much."""
        groups: list[range] = []
        for place, unit in enumerate(units):
            if not groups or len(groups[-1]) == together or unit.weight != units[groups[-1][0]].weight:
                groups.append(range(place, place))
            groups[-1] = range(groups[-1].start, place + 1)
        self.units, self.groups, self.ridge = units, groups, ridge

    def inputs(self, names: list[str], exact: Callable[[int], Floats], rounded: Sequence[Floats]) -> None:
        """Round linears that are wanted to make of `rounded` inputs [positions, in] what exact weights make of exact
        ones; `exact` are those of a unit's positions that count."""

        def parts(place: int) -> tuple[Floats, Floats]:
            return rounded[place][self.units[place].rows], exact(place)

        def moments(several: Sequence[tuple[Floats, Floats]], weight: float) -> Moments:
            x, y = (fitting.extended(each) for each in zip(*several, strict=True))
            return Moments.of(x, {fitting.EXACT: y}, weight)

        self._round(names, parts, moments)

    def adding(self, name: str, wanted: Sequence[Wanted], rounded: Sequence[Floats],
               residual: Sequence[Floats]) -> None:
        """Round the linear that is wanted to add to the rounded model's residual what makes it the exact one's."""

        def parts(place: int) -> tuple[Floats, Floats]:
            rows = self.units[place].rows
            return rounded[place][rows], wanted[place].after - residual[place][rows]

        def moments(several: Sequence[tuple[Floats, Floats]], weight: float) -> Moments:
            x, y = zip(*several, strict=True)
            return Moments.of(fitting.extended(x), {name: np.concatenate(y)}, weight)

        self._round([name], parts, moments)

    def _round(self, names: list[str], parts: Callable[[int], tuple[Floats, Floats]],
               moments: Callable[[Sequence[tuple[Floats, Floats]], float], Moments]) -> None:
        """Round layers, but for those that keep 8 bits, on moments of parts of units."""
        kept = [name for name in names if name in self.precision.keep]
        self.advance(len(kept))
        names = [name for name in names if name not in kept]
        if not names:
            return

        def of(group: range) -> Moments:
            several = [parts(place) for place in group]
            found = moments(several, self.units[group[0]].weight)
            if not found.finite():
                for place, part in zip(group, several, strict=True):
                    self._blame(names[0], self.units[place], part)
            return found

        total = Moments.total(self.workers.map(of, self.groups))
        for name, fitted in self.workers.start(lambda: self._fitted(names, total)).result().items():
            self._keep(name, fitted)
            self.advance(1)

    def _blame(self, name: str, unit: Unit, part: Sequence[Floats]) -> None:
        """An error if what a unit gives is not finite."""
        spans = unit.spans() if unit.rows == slice(None) else [slice(None)]  # of some rows: there is one window
        for own, span in zip(unit.names, spans, strict=True):
            if not all(np.isfinite(taken[span]).all() for taken in part):
                raise UserError(f"calibration: what {own} gives {name} is not finite; leave the "
                                "clip out of calibration.clips, or get the weights again")

    def _fitted(self, names: list[str], total: Moments) -> dict[str, fitting.Fitted]:
        exact = self.models.tensors[EXACT]
        weights = {name: exact[f"{name}.weight"] for name in names}
        if fitting.EXACT in total.outputs:
            total.apply({name: (weight, exact.get(f"{name}.bias")) for name, weight in weights.items()})
        try:
            return fitting.fit(weights, total, self.method, self.ridge, self.precision.group_size)
        except SingularGram as error:
            said = f"calibration: {names[0]}: {error}; give calibration.clips more, and other, speech"
            raise UserError(said) from error

    def _keep(self, name: str, fitted: fitting.Fitted) -> None:
        exact, made = self.models.tensors
        made[f"{name}.weight"] = weight_only.dequantize(fitted.rounded.q, fitted.rounded.scale)
        self.found[name] = fitted.rounded
        if f"{name}.bias" in exact:  # stored as float16, so used as that
            self.biases[f"{name}.bias"] = fitted.bias.astype(np.float16).astype(np.float32)
            made[f"{name}.bias"] = self.biases[f"{name}.bias"]
