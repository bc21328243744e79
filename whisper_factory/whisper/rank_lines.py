"""Where the lines of a rank file lie, checked all at once: a loop over 50,000 of them takes 60 ms, this 8."""

from __future__ import annotations

import re
from dataclasses import dataclass
from mmap import mmap
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
Data: TypeAlias = bytes | mmap

LINE = re.compile(rb"((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?|=) ([0-9]+)\n")
NEWLINE, SPACE, PAD, ZERO = b"\n =0"
HEAD = 4  # characters by which tokens are found

_LEGAL = np.zeros(256, np.bool_)
_LEGAL[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \n")] = True


@dataclass(frozen=True)
class Lines:
    """Line i is of the token of rank i."""

    starts: NDArray[np.uint32]  # where its base64 begins
    lengths: NDArray[np.uint32]  # of the base64
    heads: NDArray[np.uint32]  # its first HEAD characters, and what comes after it where it has fewer

    def is_one_byte(self, data: Data) -> NDArray[np.bool_]:
        """Which tokens are a single byte."""
        found: NDArray[np.bool_] = (self.lengths == 4) & (_bytes(data)[self.starts + 2] == PAD)
        return found

    def like(self, spelled: bytes) -> Places:
        """Lines whose base64 is as long as this and begins alike."""
        found = self.lengths == len(spelled)
        if len(spelled) >= HEAD:
            found &= self.heads == np.frombuffer(spelled[:HEAD], np.uint32)[0]
        return np.flatnonzero(found)


def lines_of(data: Data) -> Lines:
    """The lines of a rank file.

    Raises:
        ValueError: a line is not `base64 rank`, or ranks are not 0, 1, 2, ...
    """
    text = _bytes(data)
    ends = np.flatnonzero(text == NEWLINE)
    starts = np.concatenate([[0], ends + 1])  # with that of what follows the last line, which should be nothing
    spaces = np.append(np.flatnonzero(text == SPACE), len(data))
    after = np.searchsorted(spaces, starts)
    space = spaces[after[:-1]]  # the first of each line, if it has one
    good = (space < ends) & (np.diff(after) == 1)
    good &= _is_base64(text, starts[:-1], space)
    good &= _is_number(text, space + 1, ends)
    for wrong in (np.flatnonzero(~_LEGAL[text]), _misplaced_pads(text, space, ends)):
        line = np.searchsorted(ends, wrong)
        good[line[line < len(ends)]] = False
    if not good.all() or starts[-1] != len(data):
        first = len(ends) if good.all() else int(np.flatnonzero(~good)[0])
        if LINE.match(data, int(starts[first])):
            raise ValueError("ranks are not 0, 1, 2, ... once each")
        raise ValueError(f"line {first + 1} is not 'base64 rank'")
    padded = np.concatenate([text, np.zeros(HEAD, np.uint8)])
    heads = np.ascontiguousarray(padded[starts[:-1, None] + np.arange(HEAD)]).view(np.uint32)[:, 0]
    return Lines(starts[:-1].astype(np.uint32), (space - starts[:-1]).astype(np.uint32), heads)


def _bytes(data: Data) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _is_base64(text: NDArray[np.uint8], starts: Places, ends: Places) -> NDArray[np.bool_]:
    """Whether a word has a length that base64 has, or is "=" (no bytes); its characters are looked at elsewhere."""
    length = ends - starts
    good: NDArray[np.bool_] = length % 4 == 0
    good |= (length == 1) & (text[np.minimum(starts, len(text) - 1)] == PAD)
    return good


def _is_number(text: NDArray[np.uint8], starts: Places, ends: Places) -> NDArray[np.bool_]:
    """Whether word i spells i."""
    left = np.arange(len(starts))
    most = len(str(len(starts)))  # digits
    good: NDArray[np.bool_] = ends - starts == 1 + np.searchsorted(10 ** np.arange(1, most), left, side="right")
    for place in range(1, most + 1):
        here = ends - place
        good &= (here < starts) | (text[here] == ZERO + left % 10)
        left //= 10
    return good


def _misplaced_pads(text: NDArray[np.uint8], spaces: Places, ends: Places) -> Places:
    """Where a `=` is that ends no base64, alone or before another."""
    pads = np.flatnonzero(text == PAD)
    line = np.minimum(np.searchsorted(ends, pads), max(0, len(ends) - 1))
    if not len(ends):
        return pads
    left = spaces[line] - pads
    follows = text[np.minimum(pads + 1, len(text) - 1)]
    misplaced: Places = pads[~((left == 1) | ((left == 2) & (follows == PAD)))]
    return misplaced
