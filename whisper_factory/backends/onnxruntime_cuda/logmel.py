"""The log-mel spectrogram as ONNX, so that the GPU makes it: whisper/logmel.py's arithmetic, in float32.

A frame of 400 samples starts every 160, so frames are blocks of 160 samples with the two that follow; the Fourier
transform of all of them is one product with a matrix of cosines and sines, windowed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.graph import Graph
from whisper_factory.whisper.dimensions import HOP_LENGTH, N_FFT
from whisper_factory.whisper.logmel import FLOOR, RANGE, mel_filters

BLOCKS = -(-N_FFT // HOP_LENGTH)  # of a frame, the last not full
HALF = N_FFT // 2


def samples(frames: int) -> int:
    """How many samples the graph reads for a window of so many frames: what `fill` makes of its audio."""
    return (frames + BLOCKS - 1) * HOP_LENGTH


def fill(row: NDArray[np.float32], audio: NDArray[np.float32]) -> None:
    """Make a row [samples(frames)] what the graph reads of audio [n]: reflected at both ends of its window, else
    silence after it."""
    end = HALF + len(row) - samples(0)  # of the window
    heard = audio[: end - HALF]
    row[HALF : HALF + len(heard)] = heard
    row[HALF + len(heard) :] = 0.0
    row[:HALF] = row[2 * HALF : HALF : -1]
    count = len(row) - end
    row[end:] = row[end - 2 : end - 2 - count : -1]


def transform() -> NDArray[np.float32]:
    """[480, 402]: the windowed cosines and sines of 201 frequencies, zeros for samples behind the frame."""
    times, frequencies = np.arange(N_FFT)[:, None], np.arange(HALF + 1)[None, :]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * times / N_FFT)
    angles = 2 * np.pi * (times * frequencies % N_FFT) / N_FFT
    matrix = np.zeros((BLOCKS * HOP_LENGTH, 2 * (HALF + 1)), np.float32)
    matrix[:N_FFT] = np.concatenate([hann * np.cos(angles), hann * np.sin(angles)], axis=1)
    return matrix


def write_log_mel(graph: Graph, n_mels: int) -> None:
    """Write the graph: `audio` float32 [batch, samples(frames)] -> `mel` float32 [batch, n_mels, frames]."""
    audio = graph.input("audio", np.float32, ["batch", "samples"])
    blocks = graph.node("Reshape", [audio, graph.ints(0, -1, HOP_LENGTH)], "blocks")
    parts = [graph.node("Slice", [blocks, graph.ints(part), graph.ints(part - BLOCKS + 1 or np.iinfo(np.int64).max),
                                  graph.ints(1)], f"part{part}") for part in range(BLOCKS)]
    frames = graph.node("Concat", parts, "frames", axis=2)
    spectra = graph.node("MatMul", [frames, graph.weight("transform", transform())], "spectra")
    squares = graph.node("Mul", [spectra, spectra], "squares")
    folded = np.concatenate([mel_filters(n_mels).T] * 2)  # of cosine's and sine's square each, which adds them up
    mels = graph.node("MatMul", [squares, graph.weight("filters", folded)], "mels")
    audible = graph.node("Max", [mels, graph.scalar(FLOOR, np.float32)], "audible")
    levels = graph.node("Mul", [graph.node("Log", [audible], "logarithms"),
                                graph.scalar(1 / np.log(10), np.float32)], "levels")
    loudest = graph.node("ReduceMax", [levels, graph.ints(1, 2)], "loudest", keepdims=1)
    floor = graph.node("Sub", [loudest, graph.scalar(RANGE, np.float32)], "floor")
    kept = graph.node("Max", [levels, floor], "kept")
    scaled = graph.node("Mul", [graph.node("Add", [kept, graph.scalar(4.0, np.float32)], "raised"),
                                graph.scalar(0.25, np.float32)], "scaled")
    graph.node("Transpose", [scaled], "mel", perm=[0, 2, 1])
    graph.output("mel", np.float32, ["batch", n_mels, "frames"])
