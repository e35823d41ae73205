"""Side results: the alpha sweep's telemetry, and the ranks of the hidden states."""

from __future__ import annotations

from functools import partial

import numpy as np

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.formats import Components, TokenRecord
from arcs.reproduction.groups.group import Group, Values, mean

ALPHA, RANK = "alpha_sweep.json", "pca_rank.json"
ALPHAS = ("0.0", "0.25", "0.5", "1.0", "2.0")
SURE, UNSURE, CAP = 0.7, 0.3, 400


def alpha(artifacts: Artifacts, *, at: str) -> Values:
    """Tokens, divergence from the base model, and confidence at one alpha."""
    decodes = [item.by_alpha[at] for item in artifacts.alpha_sweep.items]
    tokens = [token for decode in decodes for token in decode.telemetry]
    return {
        "tokens": len(tokens),
        "mean_item_kl": float(np.mean([_mean_kl(decode.telemetry) for decode in decodes])),
        "mean_base_top1": float(np.mean([token.base_top1 for token in tokens])),
        "bucket": {
            "high": _bucket([t for t in tokens if t.base_top1 >= SURE]),
            "mid": _bucket([t for t in tokens if UNSURE <= t.base_top1 < SURE]),
            "low": _bucket([t for t in tokens if t.base_top1 < UNSURE]),
        },
        "hit_400_cap": sum(decode.n_tok >= CAP for decode in decodes),
    }


def _mean_kl(tokens: list[TokenRecord]) -> float:
    return float(np.mean([token.kl for token in tokens]))


def _bucket(tokens: list[TokenRecord]) -> list[float]:
    return [len(tokens), _mean_kl(tokens)]


def alpha_intervals(artifacts: Artifacts, *, at: str) -> Values:
    """Mean divergence with its interval over prompts."""
    decodes = [item.by_alpha[at] for item in artifacts.alpha_sweep.items]
    values = [_mean_kl(decode.telemetry) for decode in decodes]
    return {"mean_item_kl": mean(values, len(values))}


def ranks(artifacts: Artifacts) -> Values:
    """Components that reach each share of the variance, as published, and sums of the rest."""
    found = artifacts.pca_rank
    parts = {"base": found.base, "dd": found.dd, "diff_dd_minus_base": found.diff_dd_minus_base}
    return {name: _ranks(components) for name, components in parts.items()}


def _ranks(components: Components) -> Values:
    return {
        "ranks": components.ranks_for_variance,
        "top1": components.evr_top20[0],
        "sum_top20": sum(components.evr_top20),
    }


def rank_checks(artifacts: Artifacts) -> Values:
    """Ranks that the published first 20 shares determine, for 50 and 80 percent."""
    found = artifacts.pca_rank
    parts = {"base": found.base, "dd": found.dd, "diff_dd_minus_base": found.diff_dd_minus_base}
    return {
        name: {
            "50%": _rank(components, 0.5),
            "80%": _rank(components, 0.8),
            "largest_possible": components.shape[0] - 1,
        }
        for name, components in parts.items()
    }


def _rank(components: Components, share: float) -> int | None:
    """Components needed for ``share``; None where the first 20 do not reach it."""
    reached = np.flatnonzero(np.cumsum(components.evr_top20) >= share)
    return int(reached[0]) + 1 if reached.size else None


GROUPS: dict[str, Group] = {
    **{f"alpha.{at}": Group((ALPHA,), partial(alpha, at=at)) for at in ALPHAS},
    # At alpha 0 every divergence is 0, and there is no interval.
    **{
        f"alpha.{at}.intervals": Group((ALPHA,), partial(alpha_intervals, at=at))
        for at in ALPHAS[1:]
    },
    "pca_rank": Group((RANK,), ranks),
    "pca_rank.checks": Group((RANK,), rank_checks),
}
