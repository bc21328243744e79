"""What a TensorRT engine takes on its device. Weights, caches and buffers follow from the engine's shapes; programs and
activations were fitted to what TensorRT for RTX 1.7.1 reports of its builds (benchmarks/tensorrt_builds.py); what CUDA
takes is an assumption, and says so in its name: no GPU has run one of our engines.
"""

from __future__ import annotations

from math import prod

from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec, Precision
from whisper_factory.memory import CROSS_KV, MB, SELF_KV, Part
from whisper_factory.whisper.tensors import graph_of, is_quantized, tensor_shapes

FLOAT = 4
ASSUMED_RUNTIME = 300 * MB  # CUDA context and TensorRT's libraries; differs between devices
# Bytes of an engine beside its weights, by parts of its graph: fixed, and for each block.
PROGRAM = {"encoder": (1_250_000, 550_000), "decoder": (2_100_000, 850_000)}
WORKSPACE = 9 * MB  # of any product
LIVE = {False: 17, True: 22}  # floats for every encoder position and channel; whether weights are integers
SCORES, BESIDE = 2, 8  # float32 attention is not fused: its scores, twice; and floats as in LIVE beside them
COPIED = 1.3  # of cross-attention's KV: the decoder's attention of several rows works on copies


def weights(spec: EngineSpec) -> dict[str, int]:
    """Bytes of the constants of each graph: "encoder", with the projection of cross-attention's keys and values,
    "decoder", and the token "embedding", which is the output head too and stored once."""
    width = 2 if spec.precision.dtype == "float16" else FLOAT
    sums = {"encoder": 0, "decoder": 0, "embedding": 0}
    for name, shape in tensor_shapes(spec.dimensions).items():
        sums[graph_of(name)] += _stored(name, shape, spec.precision, width)
    sums["encoder"] += spec.profile.end_anchor * spec.dimensions.n_audio_state * width
    return sums


def _stored(name: str, shape: tuple[int, ...], precision: Precision, width: int) -> int:
    if precision.bits and is_quantized(name):
        bits = precision.bits_of(name.removesuffix(".weight"))
        scales = shape[0] if bits == 8 else prod(shape) // (precision.group_size or block_size(shape[1]))
        return prod(shape) * bits // 8 + scales * width
    norm = any(part in name for part in ("_ln.", ".ln.", ".ln_post."))
    return prod(shape) * (FLOAT if norm else width)


def engine_bytes(spec: EngineSpec) -> dict[str, int]:
    """Bytes of each stage's engine file: its constants and its program."""
    stored, sizes = weights(spec), spec.dimensions
    layers = {"encoder": sizes.n_audio_layer, "decoder": sizes.n_text_layer}
    constants = {"encoder": stored["encoder"], "decoder": stored["decoder"] + stored["embedding"]}
    return {stage: constants[stage] + fixed + each * layers[stage] for stage, (fixed, each) in PROGRAM.items()}


def footprint(spec: EngineSpec, turn_frames: int | None = None) -> list[Part]:
    """Parts of the device's memory (on a Jetson, the one it shares with the CPU), in bytes.

    Args:
        spec: settled.
        turn_frames: makes no difference: everything is taken at load, for the longest audio.
    """
    stored, name = weights(spec), spec.precision.name
    float_type = spec.precision.dtype
    programs = sum(engine_bytes(spec).values()) - sum(stored.values())
    parts = {
        f"weights, encoder ({name})": stored["encoder"],
        f"weights, decoder ({name})": stored["decoder"],
        f"embedding and output head ({float_type})": stored["embedding"],
        "programs of the engines": programs,
        SELF_KV: spec.max_rows * spec.max_tokens * token_bytes(spec),
        CROSS_KV: spec.profile.max_batch_size * spec.max_cross_len * token_bytes(spec),
        "activations": activations(spec),
        "inputs, logits, and room to reorder": _buffers(spec),
        "CUDA and TensorRT (assumed)": ASSUMED_RUNTIME,
    }
    return [Part(part, size, size) for part, size in parts.items()]


def token_bytes(spec: EngineSpec) -> int:
    """Keys and values of one token of one row, or of one encoder position of one window, in all layers."""
    width = 2 if spec.precision.dtype == "float16" else FLOAT
    return 2 * spec.dimensions.n_text_layer * spec.dimensions.n_text_state * width


def activations(spec: EngineSpec) -> int:
    """Memory that the engines work in, one after the other: the larger of the two."""
    sizes, profile, width = spec.dimensions, spec.profile, 2 if spec.precision.dtype == "float16" else FLOAT
    positions = profile.max_batch_size * spec.max_cross_len
    encoder = LIVE[spec.precision.bits > 0] * positions * sizes.n_audio_state * width
    if width == FLOAT:
        scores = profile.max_batch_size * sizes.n_audio_head * spec.max_cross_len**2 * width
        encoder = max(encoder, SCORES * scores + BESIDE * positions * sizes.n_audio_state * width)
    copies = COPIED * positions * token_bytes(spec) if spec.max_rows > 1 else 0.0
    return WORKSPACE + max(encoder, round(copies) + spec.max_rows * sizes.n_vocab * (width + FLOAT))


def _buffers(spec: EngineSpec) -> int:
    """Of session.py and kvcache.py: log-mel, logits, the new tokens' keys and values, one row or window put aside."""
    sizes, profile = spec.dimensions, spec.profile
    mel = profile.max_batch_size * sizes.n_mels * spec.window_frames * FLOAT
    logits = spec.max_rows * sizes.n_vocab * FLOAT
    new = spec.max_rows * min(LONGEST_PROMPT, spec.max_tokens) * token_bytes(spec)
    return mel + logits + new + max(spec.max_tokens, spec.max_cross_len) * token_bytes(spec)
