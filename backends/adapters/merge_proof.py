"""A merged directory compared with the adapter it was made from.

Rounding to 8 or 11 bits moves the logits by an amount that depends on the model, so no fixed
number can be its bound. It is split in two instead: the merge in float32 must equal the adapter,
and the directory must equal that merge as torch rounds it, both within float32 noise. What the
rounding costs is then measured, and is the bound for the directory against the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backends.adapters.proof import (
    OTHER,
    Comparison,
    Proof,
    Say,
    Source,
    cannot_run,
    conclude,
    difference,
    source_logits,
)
from backends.interface import Dtype, Float32, LoraConfig
from backends.verification import probe_ids
from models.directory import ModelDirectory

FLIPS = 0.1
"""Share of rounding's cost by which two roundings of one merge may differ: sums in another order
round some entries to the neighbouring value. Measured on SmolLM2-135M with B A in float64 in
place of float32: 8e-6 of a cost of 6.3e-3 (bfloat16), 2e-5 of 1.2e-3 (float16), 2e-6 in float32.
Cutting bits off in place of rounding costs more than the rounding itself."""
LOUD = 0.1
"""Share of the adapter's effect from which a loss by rounding is said."""


def prove_merge(
    base: ModelDirectory,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    written: ModelDirectory,
    dtype: Dtype,
    *,
    everything: bool,
    say: Say,
) -> Proof:
    """Compare ``written`` in transformers with ``base`` plus the adapter.

    ``dtype``: what the merged weights are stored in; ``everything``: all other weights too.
    Raises UserError for a breach.
    """
    reason = cannot_run(base, "torch")
    if reason is not None:
        return Proof("unproven", reason)
    from backends.torch.adapters import Rounding, directory_logits, merged_logits

    ids = probe_ids(base)
    say(f"proving: the adapter's logits on {len(ids)} tokens, and a merge in memory")
    source = source_logits(base, config, weights, ids)
    rounding = None if dtype == "float32" else Rounding(dtype, everything)
    exact, rounded = merged_logits(base, config, weights, ids, rounding)
    say("proving: the written directory in transformers")
    found = directory_logits(written, ids)
    cost = 0.0 if rounded is None else difference(source.adapted, rounded)
    comparisons = [
        _compare("the merge in float32", source.adapted, exact, OTHER,
                 "one product in place of three, in float32"),
        _compare("the written directory", exact if rounded is None else rounded, found,
                 OTHER + FLIPS * cost,
                 "torch's own merge" if rounded is None else f"torch's own, rounded to {dtype}"),
    ]  # fmt: skip
    notes: list[str] = []
    if rounded is not None:
        comparisons.append(
            _compare(f"the written directory in {dtype}", source.adapted, found,
                     OTHER + (1 + FLIPS) * cost,
                     f"what rounding the exact merge to {dtype} costs, by torch: {cost:.2g}")
        )  # fmt: skip
        notes = _loss(source, found, dtype)
    return conclude(source.effect, tuple(comparisons), len(ids), tuple(notes))


def _compare(
    what: str, reference: Float32, other: Float32, bound: float, reason: str
) -> Comparison:
    return Comparison(what, ("torch", "transformers"), difference(reference, other), bound, reason)


def _loss(source: Source, found: Float32, dtype: Dtype) -> list[str]:
    """Root mean square that rounding moves, over that which the adapter moves."""
    effect = _rms(source.adapted - source.base)
    if effect == 0:
        return []
    share = _rms(found - source.adapted) / effect
    agree = float((found.argmax(-1) == source.adapted.argmax(-1)).mean())
    text = (
        f"rounding to {dtype} moves the logits by {share:.1%} of what the adapter does; the most "
        f"probable token stays the same at {agree:.0%} of {len(found)} positions"
    )
    if share >= LOUD:
        text += "; use --dtype float32 to keep the adapter's effect"
    return [text]


def _rms(values: Float32) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
