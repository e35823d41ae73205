"""How far apart two engines may be, with the reason for each number."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Measure(StrEnum):
    """How a difference is expressed."""

    RELATIVE = "of the range"
    """Largest |a - b| over the range (largest minus smallest value) of the first engine's array."""
    ABSOLUTE = "absolute"
    COUNT = "count"


@dataclass(frozen=True)
class Bound:
    """What a quantity may differ by."""

    limit: float
    measure: Measure
    reason: str


_SUMS = "float32 sums in another order; a wrong RoPE, norm, mask or head is 100 times larger"
_LLAMACPP = "ggml sums in blocks and rounds its GELU and SiLU through tables"

BOUNDS: dict[str, Bound] = {
    "logits": Bound(1e-4, Measure.RELATIVE, _SUMS),
    "h_last": Bound(1e-4, Measure.RELATIVE, _SUMS),
    "head norms": Bound(1e-4, Measure.RELATIVE, _SUMS),
    "head means": Bound(1e-4, Measure.RELATIVE, _SUMS),
    "logprobs": Bound(1e-4, Measure.RELATIVE, _SUMS),
    "tempered": Bound(1e-4, Measure.RELATIVE, "as logits: one multiplication more"),
    "lora": Bound(1e-4, Measure.RELATIVE, "as logits: two small products more a module"),
    "loss curve": Bound(
        1e-4,
        Measure.ABSOLUTE,
        "nats over 20 AdamW steps: Adam enlarges float noise on near-zero gradients in the "
        "weights, hardly in the loss",
    ),
    "adapted modules": Bound(0, Measure.COUNT, "names and shapes are decided outside the engines"),
    "texts": Bound(
        0,
        Measure.COUNT,
        "texts that differ where no near-tie explains it: with the margin of the choice above "
        "1e-3 rounding cannot have changed it",
    ),
}
"""For torch against mlx, float32."""

LLAMACPP_LIMIT = 1e-3
"""For llama.cpp with F32 weights and an F32 cache."""


def bound_of(quantity: str, *, llamacpp: bool = False) -> Bound:
    """Return the bound of a quantity, ``tempered, one head`` falling under ``tempered``."""
    found = BOUNDS[quantity.partition(",")[0]]
    if llamacpp and found.measure is Measure.RELATIVE:
        return Bound(LLAMACPP_LIMIT, found.measure, _LLAMACPP)
    return found
