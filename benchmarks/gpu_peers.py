"""For gpu.py: one measurement of a peer in a process of its own, `python gpu_peers.py KIND JOB.json OUT.json`.

JOB: payload, model, system (transformers, transformers-static, transformers-compiled, openai-whisper), and of
throughput batch, minutes and each. All decode greedily in float16, without timestamps, from the same weights, in the
30 s windows that they know alone; log-mel is the peer's own, and is counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import gpu_engines
import numpy as np
from gpu_worker import LONGEST

Job = dict[str, Any]
Hear = Callable[[Sequence[Any]], list[str]]
NEW_TOKENS = 224  # at the most: as many as ours, and as openai-whisper


def openai_model(job: Job) -> Any:
    """openai-whisper's model in float16 on the GPU."""
    import torch

    sys.path.insert(0, job["payload"])
    from whisper.model import ModelDimensions, Whisper

    from whisper_factory.whisper.readers import ctranslate2

    weights = ctranslate2.read(Path(job["payload"]) / "sources" / job["model"] / "weights")
    model = Whisper(ModelDimensions(**vars(weights.dimensions)))
    state = {name: torch.from_numpy(np.array(weights.tensors[name], np.float32)) for name in model.state_dict()}
    model.load_state_dict(state)
    return model.eval().cuda()  # it casts weights itself, as it multiplies


def openai_whisper(job: Job) -> Hear:
    """Its own decode(), a batch at a time."""
    import torch

    model = openai_model(job)
    import whisper

    asked = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=True, temperature=0.0)

    def hear(audio: Sequence[Any]) -> list[str]:
        mels = [whisper.log_mel_spectrogram(whisper.pad_or_trim(torch.from_numpy(one).cuda()), device="cuda")
                for one in audio]
        with torch.no_grad():
            found = whisper.decode(model, torch.stack(mels).half(), asked)
        return [one.text for one in found]

    return hear


def transformers(job: Job) -> Hear:
    """Its own generate(), with scaled-dot-product attention; with a static cache, and compiled, where asked."""
    import torch

    sys.path.insert(0, job["payload"])
    from whisper.audio import log_mel_spectrogram, pad_or_trim

    model = _hugging_face(job)
    static = job["system"] != "transformers"
    if job["system"].endswith("compiled"):
        model.model.decoder.forward = torch.compile(model.model.decoder.forward)
    english = job["model"].endswith(".en")
    sot, no_timestamps = (50257, 50362) if english else (50258, 50363)
    prompt = [sot, no_timestamps] if english else [sot, 50259, 50359, no_timestamps]
    eot = sot - 1
    tokenizer = _vocabulary(job)

    def hear(audio: Sequence[Any]) -> list[str]:
        mels = torch.stack([log_mel_spectrogram(pad_or_trim(torch.from_numpy(one).cuda()), device="cuda")
                            for one in audio]).half()
        starts = torch.tensor([prompt] * len(audio), device="cuda")
        more = {"cache_implementation": "static"} if static else {}
        with torch.no_grad():
            found = model.generate(input_features=mels, decoder_input_ids=starts, max_new_tokens=NEW_TOKENS,
                                   do_sample=False, num_beams=1, **more)
        rows = found.cpu().numpy()
        return [tokenizer.decode([int(token) for token in row if token < eot]).strip() for row in rows]

    return hear


def _hugging_face(job: Job) -> Any:
    """transformers' model over the same weights, under its names."""
    import re

    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
    from transformers.generation import GenerationMixin

    from whisper_factory.whisper.readers import ctranslate2

    weights = ctranslate2.read(Path(job["payload"]) / "sources" / job["model"] / "weights")
    sizes = weights.dimensions
    english = job["model"].endswith(".en")
    sot = 50257 if english else 50258
    config = WhisperConfig(
        vocab_size=sizes.n_vocab, num_mel_bins=sizes.n_mels, d_model=sizes.n_audio_state,
        encoder_layers=sizes.n_audio_layer, decoder_layers=sizes.n_text_layer,
        encoder_attention_heads=sizes.n_audio_head, decoder_attention_heads=sizes.n_text_head,
        encoder_ffn_dim=4 * sizes.n_audio_state, decoder_ffn_dim=4 * sizes.n_text_state, bos_token_id=sot - 1,
        eos_token_id=sot - 1, pad_token_id=sot - 1, decoder_start_token_id=sot)
    model = WhisperForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    parts = [(r"\.blocks\.", ".layers."), (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
             (r"\.attn_ln\.", ".self_attn_layer_norm."), (r"\.mlp_ln\.", ".final_layer_norm."),
             (r"\.cross_attn\.", ".encoder_attn."), (r"\.attn\.", ".self_attn."), (r"\.query\.", ".q_proj."),
             (r"\.key\.", ".k_proj."), (r"\.value\.", ".v_proj."), (r"(_attn)\.out\.", r"\1.out_proj."),
             (r"\.mlp\.0\.", ".fc1."), (r"\.mlp\.2\.", ".fc2."), (r"\.ln_post\.", ".layer_norm."),
             (r"decoder\.ln\.", "decoder.layer_norm."), (r"token_embedding", "embed_tokens"),
             (r"positional_embedding", "embed_positions.weight")]
    state = {}
    for name in weights.tensors:
        value = torch.from_numpy(np.array(weights.tensors[name], np.float32))
        for pattern, there in parts:
            name = re.sub(pattern, there, name)
        state[f"model.{name}"] = value
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing, missing
    assert not unexpected, unexpected
    model.generation_config = GenerationConfig(eos_token_id=sot - 1, pad_token_id=sot - 1, bos_token_id=sot - 1,
                                               decoder_start_token_id=sot,
                                               suppress_tokens=sorted(_vocabulary(job).suppressed_tokens),
                                               begin_suppress_tokens=sorted(_vocabulary(job).blank_tokens))
    # The plain generate(), without Whisper's own segmenting: one window each, as the others do.
    model.generate = GenerationMixin.generate.__get__(model)
    return model.half().eval().cuda()


def _vocabulary(job: Job) -> Any:
    from whisper_factory.whisper.readers import ctranslate2
    from whisper_factory.whisper.tokenizer import Tokenizer

    source = Path(job["payload"]) / "sources" / job["model"]
    return Tokenizer.load(source / "vocabulary.tiktoken", ctranslate2.read(source / "weights").dimensions)


SYSTEMS = {"openai-whisper": openai_whisper, "transformers": transformers, "transformers-static": transformers,
           "transformers-compiled": transformers}


def latency(job: Job) -> dict[str, Any]:
    """As gpu_worker's: every clip alone, the median of rounds that are warm."""
    heard = [clip["audio"] for clip in gpu_engines.clips(Path(job["payload"])) if len(clip["audio"]) <= LONGEST * 16000]
    heard = heard[: job.get("clips", len(heard))]
    hear = SYSTEMS[job["system"]](job)
    for audio in heard[:5]:  # compiles, and warms up
        hear([audio])
    rounds = []
    for _ in range(job.get("rounds", 3)):
        times, texts = [], []
        for audio in heard:
            start = time.perf_counter()
            texts += hear([audio])
            times.append(1e3 * (time.perf_counter() - start))
        rounds.append(times)
    best = np.median(rounds, axis=0)
    return {"clips": len(heard), "median_ms": median(best), "mean_ms": float(best.mean()),
            "p95_ms": float(np.percentile(best, 95)), "texts": texts}


def throughput(job: Job) -> dict[str, Any]:
    """As gpu_worker's, in batches of neighbours."""
    audio = gpu_engines.minutes(Path(job["payload"]), job["minutes"], job["each"])
    size, hear = job["batch"], SYSTEMS[job["system"]](job)
    batches = [audio[start:start + size] for start in range(0, len(audio), size)]
    for batch in (batches[0], batches[-1]):
        hear(batch)
    start = time.perf_counter()
    texts = [text for batch in batches for text in hear(batch)]
    took = time.perf_counter() - start
    seconds = sum(map(len, audio)) / 16000
    return {"audio_s": seconds, "recordings": len(audio), "took_s": took, "real_time": seconds / took,
            "recordings_a_second": len(audio) / took, "texts": texts}


def main() -> None:
    """Run one measurement."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    kinds = {"latency": latency, "throughput": throughput}
    Path(sys.argv[3]).write_text(json.dumps(kinds[sys.argv[1]](job)), encoding="utf-8")


if __name__ == "__main__":
    main()
