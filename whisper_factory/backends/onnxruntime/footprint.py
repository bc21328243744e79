"""What an embedded engine takes, from its sizes: the resident memory of its process.

Weights and KV caches are exact (sizes.py has the caches). The constants below were fitted to what benchmarks/memory.py
measures, which is all but the libraries: docs/memory.md shows how far the sums are off.
"""

from __future__ import annotations

from math import prod

from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.backends.onnxruntime import sizes
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec
from whisper_factory.memory import CROSS_KV, LIBRARIES, MB, SELF_KV, Part
from whisper_factory.quantization import mixed
from whisper_factory.whisper.dimensions import HOP_LENGTH, SAMPLE_RATE, WINDOW_FRAMES
from whisper_factory.whisper.runaway import token_budget

FLOAT = 4
# Python, NumPy and ONNX Runtime, imported, without their code (file_pages.py); 32 were seen, and more in validation.
PYTHON = 36 * MB
SESSIONS = 11 * MB  # two sessions with their graphs, the vocabulary, the tokenizer
WIDENING = 6 * MB  # what the heap keeps of float16 weights that were widened at load
# Floats for every encoder position and channel that ONNX Runtime's arena holds of the encoder's run; less in 8 bits
# (many_rows.py). And what decoding takes beside logits and caches, the code that runs included.
ARENA, ARENA_OF_BYTES = 18, 12
WORKING = {"contiguous": 16 * MB, "paged": 7 * MB}
MEL_COPIES = 2  # log-mel windows, one by one and as a batch


def footprint(spec: EngineSpec, turn_frames: int | None = None) -> list[Part]:
    """Parts, in bytes; see `backends.Backend.footprint`.

    Integers are repacked by the runtime, so they are private memory from the start; a float32 decoder too. A float32
    encoder stays in its mapped file in paged mode, of which memory is taken when it first runs; in contiguous mode it
    is repacked, and a float16 one is widened, at load. Two batches are heard at once (sizes.lanes_of) on two
    threads or more; on one it takes less.
    """
    sizes_of, name = spec.dimensions, spec.precision.name
    encoder, decoder, head = _weights(spec)
    floats, mapped = not spec.precision.bits, spec.precision.dtype == "float32"
    runtime = SESSIONS + (WIDENING if floats and not mapped else 0)
    frames = _window(spec, turn_frames)
    self_kv, cross_kv, whole = _caches(spec, turn_frames)
    at_load = spec.kv_cache.mode == "contiguous"
    logits = 2 * spec.max_rows * sizes_of.n_vocab * FLOAT
    arena = (ARENA_OF_BYTES if spec.precision.bits == 8 else ARENA) * FLOAT * frames // 2 * sizes_of.n_audio_state
    window = MEL_COPIES * sizes_of.n_mels * frames * FLOAT  # its log-mel; the audio itself is the caller's
    sound = spec.profile.max_batch_size * window
    second = self_kv + cross_kv + logits + arena + sizes.lanes_of(spec) * window - sound  # each lane encodes one by one
    if at_load:  # kept
        second += WORKING[spec.kv_cache.mode]
    elif not sizes.lanes_of(spec):  # given back before there are tokens, which then take its place
        arena = max(0, arena - self_kv - logits)
    parts = [
        Part(f"weights, encoder ({name})", 0 if mapped and not at_load else encoder, encoder),
        Part(f"weights, decoder ({name})", decoder, decoder),
        Part(f"output head ({'float32' if floats else '8 bits'})", head, head),
        Part(SELF_KV, whole[0] if at_load else 0, self_kv),
        Part(CROSS_KV, whole[1] if at_load else 0, cross_kv),
        Part("encoder activations", 0, arena),
        Part("decoder workspace", 0, WORKING[spec.kv_cache.mode] + logits),
        Part("log-mel and audio", 0, sound),
        *([Part("a second batch at once", 0, second)] if sizes.lanes_of(spec) else []),
        Part("runtime (ONNX Runtime's sessions)", runtime, runtime),
        Part(LIBRARIES, PYTHON, PYTHON),
    ]
    # While a session repacks a matrix it has it twice, and the head is the largest; the encoder is opened after it.
    opening = decoder + (_widening_copies() if floats and not mapped else 2) * head + runtime + PYTHON
    short = opening - sum(part.peak for part in parts)
    return [*parts, Part("held twice while loading", 0, short)] if short > 0 else parts


def _widening_copies() -> int:
    """How often the head is there, in float32, while it is widened and repacked: seen 3 times with ONNX Runtime 1.23.2,
    twice with 1.32; between them nothing was measured."""
    from importlib import metadata

    try:
        version = metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return 2
    return 3 if tuple(map(int, version.split(".")[:2])) < (1, 24) else 2


def _weights(spec: EngineSpec) -> tuple[int, int, int]:
    """Resident bytes of the encoder's graph (with the cross-attention's keys and values), the decoder's, the head."""
    d, state = spec.dimensions, spec.dimensions.n_text_state
    linear = [(12 * d.n_audio_layer + 2 * d.n_text_layer) * state**2, 14 * d.n_text_layer * state**2]
    head = d.n_vocab * state
    floats = [(3 * d.n_mels * state + 3 * state**2) + d.n_audio_ctx * state, d.n_text_ctx * state]
    bits = spec.precision.bits
    if not bits:
        return FLOAT * (linear[0] + floats[0]), FLOAT * (linear[1] + floats[1]), FLOAT * head
    whole = block_size(state)
    block = spec.precision.group_size or whole
    blocks = (state if bits == 8 else block, block)  # a scale and a sum of each; in the 8-bit encoder of each row
    encoder, decoder = (_packed(count - eight, bits, size) + _packed(eight, 8, whole) + FLOAT * rest
                        for count, eight, size, rest in zip(linear, _kept(spec), blocks, floats, strict=True))
    return encoder, decoder, _packed(head, 8, whole)


def _packed(weights: int, bits: int, block: int) -> int:
    """Bytes of integers, with a float32 scale and sum for each block."""
    return weights * bits // 8 + 2 * FLOAT * weights // block


def _kept(spec: EngineSpec) -> tuple[int, int]:
    """Weights of a 4-bit engine that have 8 bits, in the encoder's graph and in the decoder's."""
    encoder = decoder = 0
    for layer, shape in mixed.layers(spec.dimensions).items():
        if layer not in spec.precision.keep:
            continue
        if layer.startswith("encoder.") or layer.endswith((".cross_attn.key", ".cross_attn.value")):
            encoder += prod(shape)
        else:
            decoder += prod(shape)
    return encoder, decoder


def _caches(spec: EngineSpec, turn_frames: int | None) -> tuple[int, int, tuple[int, int]]:
    """Bytes of self-attention's and cross-attention's cache at the highest, and of the two allocated whole.

    Paged memory is taken as tokens are written, never more than the pool.
    """
    token = sizes.token_bytes(spec)
    windows = spec.profile.max_batch_size
    whole = (sizes.self_kv_bytes(spec), sizes.cross_kv_bytes(spec, windows, spec.max_cross_len))
    if spec.kv_cache.mode == "contiguous":
        return *whole, whole
    tokens, length = spec.max_tokens, spec.max_cross_len
    if turn_frames is not None:
        tokens = min(tokens, LONGEST_PROMPT + token_budget(turn_frames * HOP_LENGTH / SAMPLE_RATE))
        frames = _window(spec, turn_frames)
        length = frames // 2 + (spec.profile.end_anchor if frames < WINDOW_FRAMES else 0)
    return (min(whole[0], spec.max_rows * tokens * token), sizes.cross_kv_bytes(spec, windows, length), whole)


def _window(spec: EngineSpec, turn_frames: int | None) -> int:
    """Mel frames of the longest window."""
    if turn_frames is None:
        return spec.window_frames
    return spec.encoder_frames(turn_frames, spec.profile.padding_strategy)
