"""The two trtllm-build commands of an engine, for the version that builds it.

The options and values are those of the Whisper example in TensorRT-LLM's own repository at that version, but for the
lengths, which follow the profile. 0.11 is taken to be as 0.12.
"""

from __future__ import annotations

import shlex

from whisper_factory import command
from whisper_factory.backends.tensorrt_llm import versions
from whisper_factory.backends.tensorrt_llm.limits import target_of
from whisper_factory.backends.tensorrt_llm.versions import Release
from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

PROGRAM = "trtllm-build"
STAGES = ("encoder", "decoder")
# By which it says that memory ran out; the first is TensorRT's, when no tactic fits into what is left.
MEMORY_WORDS = ("could not find any implementation for node", "cudaerrormemoryallocation", *command.MEMORY_WORDS)
POSITIONS = WINDOW_FRAMES // 2  # of the encoder; up to 0.12, its lengths count these, later mel frames

Options = list[tuple[str, str]]


def build_commands(spec: EngineSpec, checkpoint: str, out: str) -> dict[str, Options]:
    """Option and value, in order, of the command that builds each stage.

    Args:
        checkpoint: directory with encoder/ and decoder/, as upstream's format has them.
        out: directory that gets encoder/ and decoder/, each with rank0.engine and config.json.
    """
    release = versions.parse(target_of(spec).version)
    options = {"encoder": _encoder(spec, release), "decoder": _decoder(spec, release)}
    commands = {}
    for stage in STAGES:
        paths = [("--checkpoint_dir", f"{checkpoint}/{stage}"), ("--output_dir", f"{out}/{stage}")]
        commands[stage] = [*paths, *options[stage]]
        _check_names(commands[stage], release)
    return commands


def words(options: Options) -> list[str]:
    """A command as a list of words, the program first."""
    return [PROGRAM, *(word for pair in options for word in pair)]


def spelt(options: Options) -> str:
    """A command for a shell, an option and its plain value a line."""
    return " \\\n".join([PROGRAM, *(f"    {name} {shlex.quote(value)}" for name, value in options)])


def _encoder(spec: EngineSpec, release: Release) -> Options:
    paged_kv, *common = _common(spec, release)
    options = [paged_kv] if not release.at_least(0, 13) else []  # an encoder has no KV cache to choose a type for
    options += [*common, ("--gemm_plugin", "disable"), ("--bert_attention_plugin", "float16")]
    if not release.at_least(0, 13):
        return [*options, ("--remove_input_padding", "disable"), ("--max_input_len", str(POSITIONS))]
    lengths = [("--max_input_len", str(WINDOW_FRAMES)), ("--max_seq_len", str(WINDOW_FRAMES))]
    return [*options, *_packing(spec), *lengths]


def _decoder(spec: EngineSpec, release: Release) -> Options:
    lengths = [
        ("--max_beam_width", str(spec.profile.max_beam_width)),
        ("--max_seq_len", str(spec.max_tokens)),
        ("--max_input_len", str(LONGEST_PROMPT)),
        ("--max_encoder_input_len", str(WINDOW_FRAMES if release.at_least(0, 13) else POSITIONS)),
    ]
    plugins = [(f"--{name}_plugin", "float16") for name in ("gemm", "bert_attention", "gpt_attention")]
    options = [*_common(spec, release), *lengths, *plugins]
    if spec.kv_cache.mode == "paged":
        options.append(("--tokens_per_block", str(spec.kv_cache.tokens_per_page)))
    return [*options, *_packing(spec)]


def _common(spec: EngineSpec, release: Release) -> Options:
    """The kind of KV cache, then what both stages share."""
    paged = spec.kv_cache.mode == "paged"
    if release.at_least(0, 13):
        options = [("--kv_cache_type", "paged" if paged else "continuous")]
    else:
        options = [("--paged_kv_cache", "disable")]
    options.append(("--moe_plugin", "disable"))
    if not release.at_least(0, 16):
        options.append(("--enable_xqa", "disable"))
    return [*options, ("--max_batch_size", str(spec.profile.max_batch_size))]


def _packing(spec: EngineSpec) -> Options:
    """The C++ runtime needs packed input, which is the default; the Python session is fed padded tensors."""
    return [] if spec.kv_cache.mode == "paged" else [("--remove_input_padding", "disable")]


def _check_names(options: Options, release: Release) -> None:
    known, recorded = versions.options(release)
    unknown = [name for name, _ in options if name not in known]
    if unknown:
        raise AssertionError(f"trtllm-build of {recorded} has no option {', '.join(unknown)}")
