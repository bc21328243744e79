"""For gpu.py: matrices packed for TensorRT-LLM, unpacked and multiplied by on the GPU: `python gpu_integers.py integers
JOB.json OUT.json`.

The kernel, in Triton, finds an integer by upstream's own four steps (see tensorrt_llm/layout.py), one index at a time,
and not by our way back. What it multiplies is held against the integers before they were packed, in float64.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from gpu_worker import directory

from whisper_factory.backends.tensorrt_llm import layout
from whisper_factory.whisper.checkpoint import Checkpoint

NAMES = ("encoder.blocks.0.attn.query.weight", "encoder.blocks.1.mlp.0.weight", "decoder.blocks.2.mlp.2.weight",
         "decoder.blocks.3.cross_attn.key.weight")
ROWS = 16


@triton.jit
def multiply(x, packed, scale, y, outs, ins: tl.constexpr, bits: tl.constexpr, is_sm80: tl.constexpr,
             block: tl.constexpr):
    """y[row, out] = scale[out] * sum over `in` of x[row, in] * q[out, in], the integers looked up where they lie."""
    row, out = tl.program_id(0), tl.program_id(1)
    total = 0.0
    for start in range(0, ins, block):
        k = start + tl.arange(0, block)
        if is_sm80:
            span: tl.constexpr = 16 if bits == 8 else 32
            turns: tl.constexpr = 2 if bits == 8 else 4
            within = k % span
            # step 1: within a span, pairs of the halves (quarters) follow each other
            r = k - within + 2 * turns * ((within % 8) // 2) + 2 * (within // 8) + within % 2
            # steps 2 and 3: columns side by side, `turns` of them by turns of 64
            place = (out // turns) * turns * ins + (r // 64) * turns * 64 + (out % turns) * 64 + r % 64
            # step 4: within a word, the even ones first (bytes: the middle two change places)
            per: tl.constexpr = 32 // bits
            e = place % per
            place = place - e + e // 2 + (per // 2) * (e % 2)
        else:
            place = out * ins + k
        if bits == 8:
            stored = tl.load(packed + place, mask=k < ins, other=0).to(tl.int32)
            q = stored - 128 if is_sm80 else tl.where(stored > 127, stored - 256, stored)
        else:
            stored = tl.load(packed + place // 2, mask=k < ins, other=0).to(tl.int32)
            nibble = (stored >> (4 * (place % 2))) & 15
            q = nibble - 8 if is_sm80 else tl.where(nibble > 7, nibble - 16, nibble)
        q = tl.where(k < ins, q, 0)
        total += tl.sum(tl.load(x + row * ins + k, mask=k < ins, other=0.0) * q.to(tl.float32))
    tl.store(y + row * outs + out, total * tl.load(scale + out))


def integers(job: dict[str, Any]) -> dict[str, Any]:
    """The largest error of every matrix, relative to the largest product."""
    rows = []
    for precision, bits in (("int8", 8), ("int4", 4)):
        built = directory({**job, "precision": precision})
        checkpoint = Checkpoint.open(built.parent / f"checkpoint-{job['model']}-{precision}")
        for name in NAMES:
            found = checkpoint.quantized(name)
            assert found is not None
            rows += [_one(name, bits, family, *found) for family in ("sm90", "sm80")]
    return {"matrices": rows, "card": torch.cuda.get_device_name(), "triton": triton.__version__}


def _one(name: str, bits: int, family: Any, q: Any, scale: Any) -> dict[str, Any]:
    packed = torch.from_numpy(layout.pack(q, bits, family).view(np.uint8).copy()).cuda()
    x = np.random.default_rng(0).standard_normal((ROWS, q.shape[1])).astype(np.float32)
    y = torch.empty((ROWS, q.shape[0]), dtype=torch.float32, device="cuda")
    outs, ins = q.shape
    given, scales = torch.from_numpy(x).cuda(), torch.from_numpy(scale.copy()).cuda()
    multiply[(ROWS, outs)](given, packed, scales, y, outs, ins, bits, family == "sm80", 128)
    wanted = x.astype(np.float64) @ (q.astype(np.float64) * scale.astype(np.float64)[:, None]).T
    error = np.abs(y.cpu().numpy() - wanted).max() / np.abs(wanted).max()
    wrong = packed.flatten().clone()
    wrong[0] ^= 0x11  # a check that cannot fail would say nothing
    multiply[(ROWS, outs)](given, wrong, scales, y, outs, ins, bits, family == "sm80", 128)
    broken = np.abs(y.cpu().numpy() - wanted).max() / np.abs(wanted).max()
    return {"name": name, "bits": bits, "family": family, "shape": [outs, ins], "error": float(error),
            "error_with_one_byte_changed": float(broken)}


def main() -> None:
    """Run it."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    Path(sys.argv[3]).write_text(json.dumps(integers(job)), encoding="utf-8")


if __name__ == "__main__":
    main()
