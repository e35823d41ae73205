"""Attention in float32 on CUDA, where torch has no fused kernel for grouped queries.

transformers asks SDPA to group the queries itself (``enable_gqa``) wherever no mask is given. Of
torch's kernels only those for half precision do that; in float32 the unfused one is left, which
writes scores [b, heads, T, T]. With keys and values repeated the memory-efficient kernel serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_repeated"
PLAIN = "sdpa"


def repeated(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' SDPA over keys and values [b, kv_heads, T, d] repeated to query's heads.

    With a mask, transformers repeats them itself. One query a row (decoding) has no scores to
    speak of, and repeating would copy the whole cache at every step.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and attention_mask is None and query.shape[2] > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        module = SimpleNamespace(is_causal=getattr(module, "is_causal", True))  # groups no more
    found: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, **options
    )
    return found


@contextmanager
def plain_attention(config: Any) -> Iterator[None]:
    """transformers' own choice again while the context lasts, for comparisons with it."""
    chosen = config._attn_implementation
    if chosen == NAME:
        config._attn_implementation = PLAIN
    try:
        yield
    finally:
        config._attn_implementation = chosen


def install(config: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Let the layers that share ``config`` use :func:`repeated` where it is needed."""
    if device.type == "cuda" and dtype == torch.float32 and config._attn_implementation == PLAIN:
        AttentionInterface.register(NAME, repeated)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        config._attn_implementation = NAME
