"""How far apart two ways to compute the same thing may be, with the reason for each number.

Keyed by (operation, dtype, device). Absolute unless the reason says otherwise. Each number has
a negative twin in tests/consistency: a real mistake must exceed it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """A bound and why it is what it is."""

    value: float
    reason: str


TOLERANCES: dict[tuple[str, str, str], Tolerance] = {
    ("logits", "float32", "cpu"): Tolerance(
        5e-4,
        "torch against mlx, logits up to 48: float32 sums in another order, measured 1.5e-5 "
        "(Gemma 3) to 2.1e-4 (Qwen3.5, whose recurrence sums over time), 2.8e-4 with a LoRA; "
        "SmolLM2-135M 6e-5",
    ),
    ("loss", "float32", "cpu"): Tolerance(
        5e-6,
        "mean NLL of one batch, relative: as the logits, averaged over tokens; torch against mlx "
        "measured 4e-9 to 1.2e-7, other paddings 1e-6",
    ),
    ("gradient", "float32", "cpu"): Tolerance(
        5e-4,
        "LoRA gradient, norm of the difference relative to the largest tensor's norm; the "
        "backward pass doubles the depth of the sums; measured 7e-7 to 5.2e-5 (Qwen3.5)",
    ),
    ("loss_curve", "float32", "cpu"): Tolerance(
        1e-4,
        "mean NLL per step over 20 AdamW steps from the same start: Adam enlarges float noise on "
        "near-zero gradients in the weights but hardly in the loss; measured 1.9e-5",
    ),
    ("loss_curve", "float32", "cpu, reference BLAS"): Tolerance(
        3e-4,
        "as above, but the mlx wheel's own BLAS adds every product sequentially: measured 9.7e-5 "
        "where OpenBLAS gives 1.9e-5; with OpenBLAS or MKL preloaded the line above holds",
    ),
    ("loss_curve", "float32", "processes"): Tolerance(
        1e-5,
        "losses and gradient norms of one training by two processes and by one, relative, 6 AdamW "
        "steps: the sum over micro-batches in another order, measured 1.1e-7 to 5.1e-7",
    ),
    ("adapter", "float32", "processes"): Tolerance(
        1e-4,
        "weights after those steps, norm of the difference relative: Adam enlarges the noise of "
        "near-zero gradients; measured 1.2e-7 to 4.9e-7",
    ),
    ("h_last", "float32", "cpu"): Tolerance(
        1e-5,
        "norm of the difference of two engines' final states of the same ids, relative: as the "
        "logits; 120 rows of a tiny Llama, from torch: 3.7e-6 (mlx) and 3.8e-6 (F32 GGUF) at most, "
        "of 320 rows of SmolLM2-135M 2.5e-6 (mlx)",
    ),
    ("batching", "float32", "cpu"): Tolerance(
        5e-4,
        "gradient of a batch against the sum over its rows, relative to the largest entry: other "
        "matrix shapes, so other rounding",
    ),
    ("fast_kernels", "float32", "cpu"): Tolerance(
        2e-5,
        "our CPU attention and activations against mlx's own, values of order 1: both ways to "
        "compute e^x are off by up to 1.6e-6 relative",
    ),
}


def tolerance(operation: str, dtype: str = "float32", device: str = "cpu") -> float:
    """Return the bound for ``operation``."""
    return TOLERANCES[operation, dtype, device].value
