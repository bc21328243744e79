"""TensorRT-LLM's Python session: the encoder as a TensorRT engine, the decoder in a GenerationSession.

It runs engines with a contiguous KV cache and padded input. Names, shapes and lengths follow the Whisper example of
TensorRT-LLM's repository; never run on a GPU by this project.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.tensorrt_llm import windows
from whisper_factory.backends.tensorrt_llm.limits import release_of
from whisper_factory.backends.tensorrt_llm.versions import Release
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault
from whisper_factory.whisper.dimensions import WINDOW_FRAMES
from whisper_factory.whisper.logmel import log_mel

if TYPE_CHECKING:
    import torch

DEVICE = "cuda"
ENGINE = "rank0.engine"


class SessionEngine:
    """A loaded engine. See `engines.GeneratingEngine`."""

    def __init__(self, directory: Path, spec: EngineSpec, library: Any, threads: int) -> None:
        self.spec, self.threads = spec, threads
        self.encoder = _Encoder((directory / "encoder" / ENGINE).read_bytes(), release_of(spec))
        self.decoder = _Decoder((directory / "decoder" / ENGINE).read_bytes(), spec, library)
        self._anchor = self._silence()

    def generate(
        self, mel: NDArray[np.float32], prompts: NDArray[np.int64], max_new_tokens: int, num_beams: int
    ) -> list[list[int]]:
        """See `engines.GeneratingEngine.generate`.

        Raises:
            UserError: more, longer or wider than the engine was built for.
        """
        windows.check_lengths(prompts, max_new_tokens, num_beams, self.spec)
        rows = self.decoder.run(self._states(windows.fit(mel, self.spec)), prompts, max_new_tokens, num_beams)
        return windows.answers(rows, prompts, self.spec)

    def _states(self, mel: NDArray[np.float32]) -> torch.Tensor:
        """Encoder states [batch, positions, width], the end anchor appended to windows of less than 3000 frames."""
        import torch

        states = self.encoder.run(mel)
        if self._anchor is None or mel.shape[2] == WINDOW_FRAMES:
            return states
        anchor = self._anchor.unsqueeze(0).expand(len(mel), -1, -1)
        return torch.cat([states, anchor], dim=1).contiguous()

    def _silence(self) -> torch.Tensor | None:
        """The end anchor [rows, width], from this very encoder; None if the profile has none."""
        rows = self.spec.profile.end_anchor
        if not rows:
            return None
        silence = log_mel(np.zeros(0, np.float32), self.spec.dimensions.n_mels, WINDOW_FRAMES)
        return self.encoder.run(silence[None])[0, -rows:].clone()


class _Encoder:
    """mel -> states."""

    def __init__(self, engine: bytes, release: Release) -> None:
        from tensorrt_llm.runtime.session import Session

        self.session = Session.from_serialized_engine(engine)
        self.counts_frames = release.at_least(0, 13)  # up to 0.12 input_lengths counts positions
        names = [self.session.engine.get_tensor_name(index) for index in range(self.session.engine.num_io_tensors)]
        self.features = "input_features" if "input_features" in names else "x"
        self.wants_positions = "position_ids" in names  # from 0.15, where the length is dynamic

    def run(self, mel: NDArray[np.float32]) -> torch.Tensor:
        """Encode windows [batch, n_mels, frames]; returns float16 [batch, frames / 2, width] on the GPU.

        Raises:
            EnvironmentFault: TensorRT could not run it.
        """
        import torch
        from tensorrt_llm._utils import str_dtype_to_trt, trt_dtype_to_torch
        from tensorrt_llm.runtime.session import TensorInfo

        batch, _, frames = mel.shape
        length = frames if self.counts_frames else frames // 2
        inputs = {
            self.features: torch.from_numpy(mel).to(DEVICE, torch.float16).contiguous(),
            "input_lengths": torch.full((batch,), length, dtype=torch.int32, device=DEVICE),
        }
        if self.wants_positions:
            positions = torch.arange(frames // 2, dtype=torch.int32, device=DEVICE)
            inputs["position_ids"] = positions.expand(batch, -1).contiguous()
        kinds = {torch.float16: "float16", torch.int32: "int32"}
        shapes = [TensorInfo(name, str_dtype_to_trt(kinds[tensor.dtype]), tuple(tensor.shape))
                  for name, tensor in inputs.items()]
        (output,) = self.session.infer_shapes(shapes)
        states = torch.empty(tuple(output.shape), dtype=trt_dtype_to_torch(output.dtype), device=DEVICE)
        stream = torch.cuda.current_stream()
        if not self.session.run(inputs=inputs, outputs={output.name: states}, stream=stream.cuda_stream):
            raise EnvironmentFault(f"TensorRT could not run the encoder on {batch} windows of {frames} frames; its own "
                                   f"message is above")
        stream.synchronize()
        return states


class _Decoder:
    """states -> tokens."""

    def __init__(self, engine: bytes, spec: EngineSpec, library: Any) -> None:
        from tensorrt_llm.runtime import GenerationSession, ModelConfig

        sizes, profile, release = spec.dimensions, spec.profile, release_of(spec)
        config = ModelConfig(
            max_batch_size=profile.max_batch_size, max_beam_width=profile.max_beam_width, vocab_size=sizes.n_vocab,
            num_layers=sizes.n_text_layer, num_heads=sizes.n_text_head, num_kv_heads=sizes.n_text_head,
            hidden_size=sizes.n_text_state, gpt_attention_plugin=True, remove_input_padding=False,
            cross_attention=True, has_position_embedding=True, has_token_type_embedding=False, dtype="float16",
            **_contiguous(release),
        )
        self.session = GenerationSession(config, engine, library.Mapping(1, 0), debug_mode=False)
        self.end = windows.end_token(spec)
        self.mask_has_steps = release.at_least(0, 15)

    def run(self, states: torch.Tensor, prompts: NDArray[np.int64], max_new_tokens: int,
            num_beams: int) -> list[list[list[int]]]:
        """Decode each window; returns tokens [batch][beams][length], prompts included, padded with <|endoftext|>."""
        import torch
        from tensorrt_llm.runtime import SamplingConfig

        batch, positions, _ = states.shape
        length = prompts.shape[1]
        lengths = torch.full((batch,), length, dtype=torch.int32, device=DEVICE)
        # A window attends to all its positions: up to 0.14 one row of the mask stands for every step.
        steps = length + max_new_tokens if self.mask_has_steps else 1
        self.session.setup(batch, length, max_new_tokens, beam_width=num_beams, encoder_max_input_length=positions)
        found = self.session.decode(
            torch.from_numpy(prompts).to(DEVICE, torch.int32), lengths,
            SamplingConfig(end_id=self.end, pad_id=self.end, num_beams=num_beams),
            encoder_output=states,
            encoder_input_lengths=torch.full((batch,), positions, dtype=torch.int32, device=DEVICE),
            cross_attention_mask=torch.ones((batch, steps, positions), dtype=torch.int32, device=DEVICE),
        )
        torch.cuda.synchronize()  # the session has a stream of its own
        rows: list[list[list[int]]] = found.cpu().tolist()
        return rows


def _contiguous(release: Release) -> dict[str, Any]:
    """How this version's ModelConfig is told of a contiguous KV cache."""
    if not release.at_least(0, 13):
        return {"paged_kv_cache": False}
    try:
        from tensorrt_llm.llmapi.kv_cache_type import KVCacheType  # late 1.x
    except ImportError:
        from tensorrt_llm.bindings import KVCacheType
    return {"kv_cache_type": KVCacheType.CONTINUOUS}
