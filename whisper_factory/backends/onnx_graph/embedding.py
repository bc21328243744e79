"""The token embedding on the way in: rows of the file that the output head multiplies by.

Read, not mapped: a mapping keeps every page that was ever looked at, which in a long run is the whole table (20 MB
of tiny.en's in int8, 80 in float32). A row is one or two reads of some hundred bytes from the page cache, 3 us.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.graph import PAGE
from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.quantization.weight_only import quantize
from whisper_factory.whisper.dimensions import Dimensions

if TYPE_CHECKING:
    from whisper_factory.whisper.checkpoint import Checkpoint

NAME = "decoder.token_embedding"
BITS = 8
ZERO = 1 << (BITS - 1)


def quantized(checkpoint: Checkpoint) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The table in 8 bits, int8 [n_vocab, state], and its scales, one a block of a row: float32 [n_vocab, blocks]."""
    array = checkpoint.tensor(f"{NAME}.weight")
    q, scale = quantize(array.reshape(-1, block_size(array.shape[1])), BITS)
    return q.reshape(array.shape), scale.reshape(len(array), -1)


class Layout(NamedTuple):
    """Where things lie in the file: n_vocab rows, then in integer engines float32 scales, [n_vocab, blocks]."""

    dtype: str  # of the rows: float32, float16, uint8 around ZERO, or int8
    row: int  # bytes
    scales: int  # where they begin; in float engines, where the file ends
    blocks: int  # scales of a row; 0 in float engines

    @classmethod
    def of(cls, sizes: Dimensions, precision: Precision, whole_rows: bool = False) -> Layout:
        """The layout of an engine's table; `whole_rows`: of integers with one scale for a row."""
        if not precision.bits:
            row = sizes.n_text_state * np.dtype(precision.dtype).itemsize
            return cls(precision.dtype, row, sizes.n_vocab * row, 0)
        row = sizes.n_text_state
        scales = -(-sizes.n_vocab * row // PAGE) * PAGE
        return cls("int8", row, scales, 1) if whole_rows else cls("uint8", row, scales, row // block_size(row))

    def size(self, n_vocab: int) -> int:
        """Bytes of the whole file."""
        return self.scales + n_vocab * self.blocks * 4


class TokenEmbedding:
    """The table of an engine."""

    def __init__(self, path: Path, sizes: Dimensions, precision: Precision, whole_rows: bool = False) -> None:
        """
        Args:
            whole_rows: an engine of integers has one scale for a row, not one a block of it.

        Raises:
            UserError: the file is missing or damaged.
        """
        self._sizes, self._layout = sizes, Layout.of(sizes, precision, whole_rows)
        try:
            self._file = path.open("rb", buffering=0)
            found = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise UserError(f"'{path}' cannot be opened ({error.strerror}); build the engine again") from error
        if found != (size := self._layout.size(sizes.n_vocab)):
            raise UserError(f"'{path}' has {found} bytes, not {size}; build the engine again")

    def rows(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of tokens of any shape [...], float32 [..., state].

        Raises:
            ValueError: a number that is no token.
        """
        if tokens.min() < 0 or tokens.max() >= self._sizes.n_vocab:
            raise ValueError(f"tokens {tokens.ravel().tolist()}: a token is 0 to {self._sizes.n_vocab - 1}")
        layout, flat = self._layout, tokens.ravel().tolist()
        found = self._read(layout.row, 0, flat, layout.dtype).astype(np.float32)
        if layout.blocks:
            if layout.dtype == "uint8":
                found -= ZERO
            scales = self._read(4 * layout.blocks, layout.scales, flat, "<f4")
            found = found.reshape(len(flat), layout.blocks, -1) * scales[:, :, None]
        return found.reshape(*tokens.shape, self._sizes.n_text_state)

    def _read(self, size: int, start: int, tokens: list[int], dtype: str) -> NDArray[Any]:
        """Of each token `size` bytes of a table that begins at `start`, [tokens, numbers]."""
        file = self._file.fileno()
        read = b"".join([os.pread(file, size, start + token * size) for token in tokens])
        return np.frombuffer(read, dtype).reshape(len(tokens), -1)
