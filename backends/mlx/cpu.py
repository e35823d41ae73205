"""MLX on a Linux CPU, where its own kernels are slow: the same formulas from faster operations.

Measured with mlx 0.32.4 on x86-64: an ``exp`` costs 18 ns an element (its vector code is written
for Apple's processors), ``sigmoid`` and ``tanh`` 25 ns, ``power`` 5 ns with the same relative
error of 1.6e-6. In LoRA training the exponentials took longer than the matrix products. So in
this process, and only on a CPU, e^x is 2^(x log2 e), and the softmax of attention and the
activations of the MLPs are built on it. Large buffers are kept by the allocator, since zeroing
fresh pages took 15 percent of the time.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from backends.mlx.device import on_cpu

LOG2_E = math.log2(math.e)
_TWO_ROOT = 2.0 * math.sqrt(2.0 / math.pi)

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2
"""glibc's names for mallopt, from malloc.h."""
_HEAP_BUFFER = 32 << 20
"""Larger buffers come from mmap in any case: the most that glibc accepts."""


def exp(x: mx.array) -> mx.array:
    """e^x, by the faster way on a CPU."""
    return mx.power(mx.array(2.0, x.dtype), x * LOG2_E) if on_cpu() else mx.exp(x)


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what it frees, for this whole process; else do nothing."""
    if sys.platform == "linux" and on_cpu():
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_MMAP_THRESHOLD, _HEAP_BUFFER)
            libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_TOP_PAD, 2 * _HEAP_BUFFER)


def return_freed_memory() -> None:
    """Give back to the system what :func:`keep_freed_memory` made the allocator keep."""
    if sys.platform == "linux" and on_cpu():
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def _softmax(x: mx.array) -> mx.array:
    powers = exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


softmax: Any = mx.custom_function(_softmax)
"""Softmax over the last axis."""


@softmax.vjp  # type: ignore[untyped-decorator]
def _softmax_vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    weighted = cotangent * output
    return weighted - output * weighted.sum(axis=-1, keepdims=True)


Gated = Callable[[mx.array, mx.array], mx.array]


def _gated(argument: Callable[[mx.array], mx.array], slope: Callable[[mx.array], mx.array]) -> Any:
    """Return (gate, up) -> gate * s * up and s = sigmoid(argument(gate)), with its derivative.

    ``slope`` is the derivative of ``argument``. Written by hand, since autograd of 1 / (1 + e^-z)
    gives infinity * 0 where e^-z overflows.
    """

    def value(gate: mx.array, up: mx.array) -> tuple[mx.array, mx.array]:
        sigmoid = 1.0 / (1.0 + exp(-argument(gate)))
        return gate * sigmoid * up, sigmoid

    gated: Any = mx.custom_function(value)

    @gated.vjp  # type: ignore[untyped-decorator]
    def gated_vjp(
        inputs: tuple[mx.array, mx.array],
        cotangents: tuple[mx.array, mx.array],
        outputs: tuple[mx.array, mx.array],
    ) -> tuple[mx.array, mx.array]:
        (gate, up), sigmoid = inputs, outputs[1]
        weighted = cotangents[0] * sigmoid
        return weighted * up * (1.0 + gate * (1.0 - sigmoid) * slope(gate)), weighted * gate

    return gated


_silu = _gated(lambda gate: gate, mx.ones_like)
_gelu = _gated(
    lambda gate: _TWO_ROOT * (gate + 0.044715 * gate * gate * gate),
    lambda gate: _TWO_ROOT * (1.0 + 3.0 * 0.044715 * gate * gate),
)


def gated_silu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up (SwiGLU, arXiv 2002.05202)."""
    product: mx.array = _silu(gate, up)[0]
    return product


def gated_gelu(gate: mx.array, up: mx.array) -> mx.array:
    """gelu(gate) * up with the tanh approximation, (1 + tanh z) / 2 being sigmoid(2 z)."""
    product: mx.array = _gelu(gate, up)[0]
    return product


_ACTIVATIONS: dict[tuple[str, str], Gated] = {
    ("mlx_lm.models.llama", "MLP"): gated_silu,
    ("mlx_lm.models.qwen3", "MLP"): gated_silu,
    ("mlx_lm.models.qwen3_next", "Qwen3NextMLP"): gated_silu,
    ("mlx_lm.models.gemma3_text", "MLP"): gated_gelu,
    ("mlx_lm.models.gemma4_text", "MLP"): gated_gelu,
}
"""MLP classes of the form down(act(gate(x)) * up(x)), by module and name."""


def use_fast_activations(network: Any) -> None:
    """Swap the class of every known MLP for one with a faster activation, on a CPU only."""
    if not on_cpu():
        return
    for module in network.modules():
        activation = _ACTIVATIONS.get((type(module).__module__, type(module).__name__))
        if activation is not None:
            module.__class__ = _faster(type(module), activation)


def _faster(cls: type, activation: Gated) -> type:
    def call(self: Any, x: mx.array) -> mx.array:
        product: mx.array = self.down_proj(activation(self.gate_proj(x), self.up_proj(x)))
        return product

    return type(cls.__name__, (cls,), {"__call__": call})


@contextmanager
def fast_attention() -> Iterator[None]:
    """Replace ``mx.fast.scaled_dot_product_attention``, which on a CPU is no faster, meanwhile.

    mlx-lm's models reach it through that one name. Elsewhere than on a CPU nothing changes.
    """
    if not on_cpu():
        yield
        return
    original = mx.fast.scaled_dot_product_attention
    vars(mx.fast)["scaled_dot_product_attention"] = attention
    try:
        yield
    finally:
        vars(mx.fast)["scaled_dot_product_attention"] = original


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
) -> mx.array:
    """Grouped-query attention: queries [b, H, T, d], keys and values [b, G, S, d]; G divides H.

    ``mask``: ``causal``, booleans that broadcast to [b, H, T, S], or None.
    """
    if sinks is not None or (isinstance(mask, mx.array) and mask.dtype != mx.bool_):
        raise NotImplementedError("attention sinks and additive masks")
    b, heads, length, width = queries.shape
    groups = keys.shape[1]
    split = (queries * scale).reshape(b, groups, heads // groups, length, width)
    scores = split @ mx.expand_dims(keys, 2).swapaxes(-1, -2)
    allowed = _allowed(mask, length, keys.shape[2])
    if allowed is not None:
        scores = mx.where(allowed, scores, mx.finfo(scores.dtype).min)
    mixed: mx.array = softmax(scores) @ mx.expand_dims(values, 2)
    return mixed.reshape(b, heads, length, values.shape[-1])


def _allowed(mask: mx.array | str | None, length: int, total: int) -> mx.array | None:
    """Return booleans that broadcast to [b, G, H / G, T, S]."""
    if isinstance(mask, str):
        rows = mx.arange(total - length, total)
        return rows[:, None] >= mx.arange(total)[None]
    return mx.expand_dims(mask, -3) if mask is not None and mask.ndim > 2 else mask
