"""How large the KV caches of an engine are, in formulas. Pure arithmetic; `kvcache` allocates exactly this.

With L decoder layers of H heads of size D, four bytes a number:

- a token of a row takes `token_bytes` = 2 L * H * D * 4, a position of a window the same in cross-attention, or a
  fourth and L * H * 4 for sums where its numbers are bytes (`cross_in_bytes`; then a window has 2 L * H * D * 4 bytes
  of scales, uncounted);
- a page holds `tokens_per_page` tokens of one row. contiguous: one page a row, as long as the longest sequence;
- contiguous: `pool_pages` pages and cross-attention of max_batch_size * max_cross_len positions are taken and
  written when the engine loads, and nothing after that;
- paged: nothing at load. While an utterance is open, windows * length positions of cross-attention, and
  rows * ceil(tokens / tokens_per_page) pages, of which the system gives memory as tokens are written; when a
  sequence ends, its pages go back.
"""

from __future__ import annotations

from whisper_factory.engine_spec import LONGEST_PROMPT, EngineSpec

FLOAT = 4


def token_bytes(spec: EngineSpec) -> int:
    """Keys and values of one token of one row, in all layers."""
    return 2 * spec.dimensions.n_text_layer * spec.dimensions.n_text_state * FLOAT


def cross_in_bytes(spec: EngineSpec) -> bool:
    """Whether cross-attention's keys and values are bytes (byte_kv.py): in an engine of integers for several windows.

    Those of one window lie in the processor's cache, where bytes gain little.
    """
    return spec.precision.bits > 0 and spec.profile.max_batch_size > 1


def lanes_of(spec: EngineSpec) -> int:
    """Batches that an engine of two threads or more hears at once, each in KV caches of its own, where it has more than
    one; 0: it hears one after the other."""
    return 2 if cross_in_bytes(spec) and not spec.kv_cache.max_pages else 0


def position_bytes(spec: EngineSpec) -> int:
    """Keys and values of one encoder position of one window, in all layers."""
    if not cross_in_bytes(spec):
        return token_bytes(spec)
    return token_bytes(spec) // FLOAT + spec.dimensions.n_text_layer * spec.dimensions.n_text_head * FLOAT


def page_tokens(spec: EngineSpec) -> int:
    """Tokens of one row that a page holds."""
    return spec.kv_cache.tokens_per_page if spec.kv_cache.mode == "paged" else spec.max_tokens


def pages(spec: EngineSpec, tokens: int) -> int:
    """Pages of one row of so many tokens."""
    return -(-tokens // page_tokens(spec))


def most_pages(spec: EngineSpec) -> int:
    """Pages of every row at its longest."""
    return spec.max_rows * pages(spec, spec.max_tokens)


def pool_pages(spec: EngineSpec) -> int:
    """Pages that there are: kv_cache.max_pages, or enough for everything."""
    return spec.kv_cache.max_pages or most_pages(spec)


def least_pages(spec: EngineSpec) -> int:
    """Pages without which not even the prompts of all rows fit."""
    return spec.max_rows * pages(spec, min(LONGEST_PROMPT, spec.max_tokens))


def capacity(spec: EngineSpec) -> int:
    """Tokens of a row that addresses are kept for: whole pages."""
    return pages(spec, spec.max_tokens) * page_tokens(spec)


def self_kv_bytes(spec: EngineSpec) -> int:
    """Self-attention's KV cache at its largest: of contiguous mode, always."""
    return pool_pages(spec) * page_tokens(spec) * token_bytes(spec)


def cross_kv_bytes(spec: EngineSpec, windows: int, length: int) -> int:
    """Cross-attention's KV of so many windows of `length` encoder positions."""
    return windows * length * position_bytes(spec)
