"""What a TensorRT-LLM engine takes on its device: computed from sizes, and unproven, as no GPU has run one of ours.

Weights, KV caches and audio follow from the engine's shapes. What CUDA, TensorRT and their libraries take is an
assumption, and says so in its name.
"""

from __future__ import annotations

from whisper_factory.engine_spec import EngineSpec
from whisper_factory.memory import CROSS_KV, MB, SELF_KV, Part, weight_bytes
from whisper_factory.whisper.dimensions import HOP_LENGTH, WINDOW_FRAMES

HALF, FLOAT, INTEGER = 2, 4, 4
ASSUMED_RUNTIME = 500 * MB  # CUDA context, TensorRT's and TensorRT-LLM's libraries; differs between devices


def footprint(spec: EngineSpec, turn_frames: int | None = None) -> list[Part]:
    """Parts of the device's memory (on a Jetson, the one it shares with the CPU), in bytes.

    Args:
        spec: settled.
        turn_frames: makes no difference: this runtime takes what the longest audio needs.
    """
    sizes, profile, name = spec.dimensions, spec.profile, spec.precision.name
    stored = weight_bytes(sizes, spec.precision)
    head = 2 * stored["embedding"]  # the output head is a copy of the embedding
    token = 2 * sizes.n_text_layer * sizes.n_text_state * HALF  # keys and values of one token
    self_kv = spec.max_rows * spec.max_tokens * token
    cross_kv = profile.max_batch_size * spec.max_cross_len * token
    paged = spec.kv_cache.mode == "paged"
    mel = profile.max_batch_size * WINDOW_FRAMES * (sizes.n_mels * HALF + HOP_LENGTH * FLOAT)
    activations, workspace = _encoder_activations(spec), _decoder_workspace(spec)
    return [
        Part(f"weights, encoder ({name})", stored["encoder"], stored["encoder"]),
        Part(f"weights, decoder ({name})", stored["decoder"], stored["decoder"]),
        Part("embedding and output head (float16)", head, head),
        Part(SELF_KV, self_kv if paged else 0, self_kv),  # the C++ runtime takes its pool at load
        Part(CROSS_KV, cross_kv if paged else 0, cross_kv),
        Part("encoder activations", activations, activations),  # reserved for the largest shape at load
        Part("decoder workspace", workspace, workspace),
        Part("log-mel and audio", 0, mel),
        Part("CUDA and TensorRT (assumed)", ASSUMED_RUNTIME, ASSUMED_RUNTIME),
    ]


def _encoder_activations(spec: EngineSpec) -> int:
    """Of one layer at the engine's largest shape: the residual, its norm, queries, keys and values, and the MLP's
    hidden states, in float16; the attention matrix is never whole in the fused kernels."""
    sizes = spec.dimensions
    return spec.profile.max_batch_size * sizes.n_audio_ctx * (2 + 3 + 4) * sizes.n_audio_state * HALF


def _decoder_workspace(spec: EngineSpec) -> int:
    """Logits and sampling of every row (two float copies and indices), and one layer's states for a prompt."""
    sizes, prompt = spec.dimensions, 4
    logits = spec.max_rows * sizes.n_vocab * (2 * FLOAT + INTEGER)
    return logits + spec.max_rows * prompt * (2 + 3 + 4) * sizes.n_text_state * HALF
