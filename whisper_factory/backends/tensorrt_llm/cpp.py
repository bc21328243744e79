"""TensorRT-LLM's C++ runtime, ModelRunnerCpp: it runs engines with a paged KV cache and packed input, from 0.13 on.

Names and arguments follow the Whisper example of TensorRT-LLM's repository; never run on a GPU by this project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.tensorrt_llm import windows
from whisper_factory.backends.tensorrt_llm.limits import release_of, target_of
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

DEVICE = "cuda"


class CppEngine:
    """A loaded engine. See `engines.GeneratingEngine`."""

    def __init__(self, directory: Path, spec: EngineSpec, library: Any, threads: int) -> None:
        self.spec, self.threads = spec, threads
        target, profile = target_of(spec), spec.profile
        memory = {"kv_cache_free_gpu_memory_fraction": target.kv_cache_free_gpu_memory_fraction}
        if release_of(spec).at_least(0, 15):
            memory["cross_kv_cache_fraction"] = target.cross_kv_cache_fraction
        self.runner = library.runtime.ModelRunnerCpp.from_dir(
            engine_dir=str(directory), is_enc_dec=True, max_batch_size=profile.max_batch_size,
            max_input_len=WINDOW_FRAMES, max_output_len=profile.max_new_tokens,
            max_beam_width=profile.max_beam_width, **memory,
        )

    def generate(
        self, mel: NDArray[np.float32], prompts: NDArray[np.int64], max_new_tokens: int, num_beams: int
    ) -> list[list[int]]:
        """See `engines.GeneratingEngine.generate`.

        Raises:
            UserError: more, longer or wider than the engine was built for.
        """
        import torch

        windows.check_lengths(prompts, max_new_tokens, num_beams, self.spec)
        mel = windows.fit(mel, self.spec)
        batch, _, frames = mel.shape
        end = windows.end_token(self.spec)
        # The executor takes features frame by frame: [batch, frames, n_mels].
        features = torch.from_numpy(mel).to(DEVICE, torch.float16).transpose(1, 2).contiguous()
        found = self.runner.generate(
            batch_input_ids=torch.from_numpy(prompts.astype(np.int32)),
            encoder_input_features=features,
            encoder_output_lengths=torch.full((batch,), frames // 2, dtype=torch.int32, device=DEVICE),
            max_new_tokens=max_new_tokens, end_id=end, pad_id=end, num_beams=num_beams,
            output_sequence_lengths=True, return_dict=True,
        )
        torch.cuda.synchronize()
        rows: list[list[list[int]]] = found["output_ids"].cpu().tolist()
        return windows.answers(rows, prompts, self.spec)
