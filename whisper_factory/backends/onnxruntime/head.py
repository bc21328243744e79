"""experiment"""
from __future__ import annotations
import os
import numpy as np
from whisper_factory.backends.onnxruntime.graph import CONTRIB, Graph
from whisper_factory.backends.onnxruntime.pack import pack_integers
NAME = "decoder.token_embedding"
MODE = os.environ.get("HEAD", "shared")  # EXPERIMENT
HB = int(os.environ.get("HB", "128"))
PERROW = os.environ.get("PERROW", "0") == "1"
HL = int(os.environ.get("HL", "4"))

class Vocabulary:
    def __init__(self, graph, checkpoint):
        from whisper_factory.quantization.weight_only import quantize
        self.graph = g = graph
        self.dtype = np.dtype(checkpoint.precision.dtype)
        self.integers = checkpoint.precision.bits > 0 and MODE != "float"
        E = checkpoint.tensor(f"{NAME}.weight"); V, d = E.shape; self.V, self.d = V, d
        if not (MODE == "shared" and self.integers):
            self.table = graph.weight(f"{NAME}.weight", E)
        if self.integers:
            if PERROW:
                q, s = quantize(E, 8); s = np.repeat(s, d // HB)
            else:
                q, s = quantize(E.reshape(-1, HB), 8); q = q.reshape(V, d)
            self.w = g.weight("decoder.head.weight", pack_integers(q, 8, HB))
            self.s = g.weight("decoder.head.scale", s)

    def embed(self, tokens):
        g = self.graph
        if MODE == "shared" and self.integers:
            w = g.external(f"{NAME}.weight", np.dtype(np.uint8), (self.V, self.d), g.region(self.w))
            s = g.external(f"{NAME}.scale", np.dtype(np.float32), (self.V, self.d // HB), g.region(self.s))
            return g.node("GatherBlockQuantized", [w, tokens, s], f"{NAME}.output", CONTRIB, bits=8, block_size=HB, gather_axis=0, quantize_axis=1)
        rows = g.node("Gather", [self.table, tokens], f"{NAME}.rows")
        return rows if self.dtype == np.float32 else g.node("Cast", [rows], f"{NAME}.output", to=1)

    def logits(self, x):
        g = self.graph
        if self.integers:
            return g.node("MatMulNBits", [x, self.w, self.s], "logits", CONTRIB, K=self.d, N=self.V, bits=8, block_size=HB, accuracy_level=HL)
        t = self.table
        if self.dtype != np.float32:
            t = g.node("Cast", [t], f"{NAME}.float32", to=1)
        return g.node("Gemm", [x, t], "logits", transB=1)
