"""What is being decoded against caches that are bound once: the rows there are, and the windows that they are of."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.cuda.kvcache import KVCaches
from whisper_factory.backends.requests import check_tokens, windows_of
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec

Self = TypeVar("Self", bound="ContiguousUtterance")


class ContiguousUtterance:
    """Encoded windows, and the rows of tokens that grow from them. See `engines.Utterance`."""

    def __init__(self, spec: EngineSpec, caches: KVCaches, windows: int, cross: int) -> None:
        self.length = 0
        self.rows = windows  # sequences being decoded; 0 once closed
        self._spec, self._caches = spec, caches
        self._windows, self._cross = windows, cross  # encoder positions of each window

    def _check(self, tokens: NDArray[np.int64]) -> None:
        """Refuse tokens [rows, new] that cannot be fed.

        Raises:
            UserError: the sequences would be longer than the engine was built for.
            ValueError: another number of rows than there is, several tokens after the first step, no token, one that
                there is not, or closed.
        """
        check_tokens(self._spec, tokens, self.rows, self.length, min(LONGEST_PROMPT, self._spec.max_tokens))

    def select(self, rows: NDArray[np.int64]) -> None:
        """Row i continues from the past of former row rows[i].

        Rows of one window must come out adjacent, and equally many for each window that is left.

        Raises:
            UserError: more rows than the engine was built for.
            ValueError: rows that do not exist, or not as said above.
        """
        rows = np.asarray(rows, np.int64)
        windows = windows_of(self._spec, rows, self.rows, self._windows)
        self._caches.select_rows(rows.tolist(), self.length)
        self._caches.select_windows(windows.tolist(), self._cross)
        self.rows, self._windows = len(rows), len(windows)

    def rewind(self) -> None:
        """Forget every token; rows and their windows stay as they are."""
        self.length = 0

    def room(self, new: int, beams: int) -> int:
        """All windows: there is memory for every row at its longest."""
        return self._windows

    def split(self: Self, windows: int) -> Self:
        """Never needed, as there is room for all."""
        raise ValueError("there is room for all windows of this engine: none has to wait")

    def close(self) -> None:
        """The memory is the next utterance's."""
        self.rows = 0
