"""Opening ONNX Runtime sessions: the options, and why."""

from __future__ import annotations

import ctypes
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    import onnxruntime


def return_freed_memory() -> None:
    """Have the C library give what it holds of freed memory back to the system, where it can (glibc)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


CPUINFO = Path("/proc/cpuinfo")
LARGE = 512 * 1024  # bytes; of what is smaller the heap keeps little
SAME_AS_REQUESTED = 1  # as onnxruntime_c_api.h has it
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h has them


def return_large_blocks() -> None:
    """Have the C library give every block of LARGE bytes back to the system when it is freed, where it can (glibc).

    For the whole process. Else its threshold follows the largest block that was ever freed, and the heap keeps them.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, LARGE)


def returning_arena() -> onnxruntime.RunOptions:
    """For a run after which its session's arena holds nothing (the system has it back after `return_large_blocks`).

    Without an arena the peak is lower, that of the live tensors, but the system gives every tensor's pages anew.
    tiny.en int8, 850 frames on two threads: 69 ms so, 26 when the arena is given back or kept.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


@cache
def register_exact_arena() -> None:
    """Register an arena for all sessions that ask for one, which grows by what is asked of it, once in a process.

    A session's own grows by powers of two, and keeps its first block for good: 2 MB of tiny.en's peak.
    """
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo("Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0,
                                       onnxruntime.OrtMemType.DEFAULT)
    with suppress(RuntimeError):  # the program around us has registered one of its own
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({
            "arena_extend_strategy": SAME_AS_REQUESTED, "initial_chunk_size_bytes": 1 << 16}))


def adds_bytes_exactly() -> bool:
    """Whether this processor's products of unsigned and signed bytes cannot overflow.

    x86-64's without VNNI add two of them in 16 bits. There ONNX Runtime has to turn signed bytes into unsigned ones,
    which takes twice the time; asked to, it does so on any x86-64, and nothing elsewhere.
    """
    flags = processor_flags()
    return "avx512_vnni" in flags or "avx_vnni" in flags


@cache
def multiplies_rows_as_they_lie() -> bool:
    """Whether this processor's product of a single row of bytes reads the matrix without packing it first.

    x86-64's does, but for AMX.
    """
    return platform.machine() in ("x86_64", "AMD64") and "amx_int8" not in processor_flags()


def processor_flags() -> str:
    """What /proc/cpuinfo says of it, x86's flags among it; nothing where there is none."""
    try:
        return CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def open_session(model: Path, threads: int, prepack: bool = True,
                 fuse_dequantizing: bool = True, optimize: bool = True, exact_arena: bool = False
                 ) -> onnxruntime.InferenceSession:
    """Open a model on the CPU.

    The options that differ from the defaults, measured with tiny.en and base on two cores:
    - Waiting threads sleep instead of spinning. Spinning gained nothing on an idle machine (tiny.en int8: 1.0 to
      1.1 ms a token, 31 ms to encode 750 frames, either way) and halved the speed on a busy one (4.1 against 2.0 ms
      a token), at two to three times the processor time; an embedded engine shares its cores.
    - No memory pattern: planning all activations as one block per input shape made the peak higher (base int8,
      3000 frames: 283 MB against 244 MB), at the same speed.

    Args:
        model: the .onnx file; its weights lie beside it, and are mapped.
        threads: of an operator.
        prepack: let products keep their matrices in a layout of their own, in private memory. Quantised ones need it.
            float32's do without it at no great cost when they have many rows (tiny.en, 850 frames: 51 ms against 50;
            3000 frames: 5 % more), and at a high one when they have one (a token: 6.0 ms against 4.3); then the mapped
            file is all there is.
        fuse_dequantizing: let DequantizeLinear before MatMul become a product of integers, for which activations are
            rounded to 8 bits.
        optimize: rewrite the graph. Those of integers are written so that nothing is left to do.
        exact_arena: take activations' memory from the arena of `register_exact_arena`.

    Raises:
        EnvironmentFault: onnxruntime cannot be imported.
        UserError: the model, or a file it needs, is missing or damaged.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentFault(f"onnxruntime cannot be imported ({error}); "
                               f"pip install 'whisper-factory[onnxruntime]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if exact_arena:
        register_exact_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    if not fuse_dequantizing:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not adds_bytes_exactly():
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 4  # what it would print, its exceptions say
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base of their own
        reason = " ".join(str(error).split()).partition(" onnxruntime::")[0][:200]
        raise UserError(f"'{model}' cannot be opened ({reason}); build the engine again") from error
