"""Arc 2: ranked attention heads, and what the best of as many noise values would reach."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy.stats import norm

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.formats import Attribution, Head
from arcs.reproduction.groups.group import Group, Values, with_interval
from evals.statistics.permutation import expected_maximum_of_normals, largest_effect_p_value
from evals.statistics.rates import Interval

FILES = {
    "gemma": "path_b_attribution_gemma4.json",
    "qwen35": "path_b_attribution_qwen35_0.8b.json",
}


ROUNDING = 1e-9


def _heads(artifacts: Artifacts, model: str) -> Attribution:
    return artifacts.gemma_heads if model == "gemma" else artifacts.qwen_heads


def ranking(artifacts: Artifacts, *, model: str) -> Values:
    """Counts and extremes of the effect sizes, and checks of the file against itself."""
    found = _heads(artifacts, model)
    heads = sorted(found.all_heads_ranked_by_cohen_d, key=lambda head: -head.cohen_d)
    effects = np.array([head.cohen_d for head in heads])
    return {
        "cohorts": found.cohorts.model_dump(),
        "n_heads_total": len(heads),
        "top5": [_named(head) for head in heads[:5]],
        "bottom1": _named(heads[-1]),
        "n_d_ge_0.5": int((effects >= 0.5).sum()),
        "n_d_ge_0.4": int((effects >= 0.4).sum()),
        "n_positive": int((effects > 0).sum()),
        "mean_d": float(effects.mean()),
        "sd_d": float(effects.std()),
        "mean_delta_top5": float(np.mean([head.overconf_score for head in heads[:5]])),
        "max_abs_delta_identity_error": max(map(_identity_error, heads)),
        "implied_pooled_sd_top1": heads[0].overconf_score / heads[0].cohen_d,
    }


def _named(head: Head) -> list[float]:
    return [head.layer, head.head, head.cohen_d]


def _identity_error(head: Head) -> float:
    return abs(head.overconf_score - (head.mean_cw - head.mean_cr))


def consistency(artifacts: Artifacts, *, model: str) -> Values:
    """Whether order, slices and spreads of the file agree with its own values."""
    found = _heads(artifacts, model)
    heads = found.all_heads_ranked_by_cohen_d
    effects = [head.cohen_d for head in heads]
    ranked = sorted(heads, key=lambda head: -head.cohen_d)
    changes = [abs(head.overconf_score / head.mean_cr) for head in heads[:5]]
    ranks = {f"rank{i}": f"L{h.layer}H{h.head}" for i, h in enumerate(ranked[:10], start=1)}
    return {
        "in_order": effects == sorted(effects, reverse=True),
        "top20_is_a_slice": found.top20_overconf_heads == heads[:20],
        "bottom5_is_a_slice": _same_heads(found.bottom5_overconf_heads, heads[-5:]),
        "all_spreads_positive": all(_spread(head) > 0 for head in heads),
        "heads_unique": len({(head.layer, head.head) for head in heads}) == len(heads),
        "delta_identity": all(_identity_error(head) < ROUNDING for head in heads),
        "largest_relative_change_top5": max(changes),
        **ranks,
    }


def _same_heads(first: list[Head], second: list[Head]) -> bool:
    return {(h.layer, h.head) for h in first} == {(h.layer, h.head) for h in second}


def _spread(head: Head) -> float:
    """Pooled standard deviation that the file's difference and effect size imply."""
    return head.overconf_score / head.cohen_d if head.cohen_d else math.inf


def chance(artifacts: Artifacts, *, model: str) -> Values:
    """The strongest head beside the maximum of as many standard normal values.

    Heads are correlated and per-answer norms are not published, so this is a null for
    independent heads, not a permutation test.
    """
    found = _heads(artifacts, model)
    heads = sorted(found.all_heads_ranked_by_cohen_d, key=lambda head: -head.cohen_d)
    error = math.sqrt(1 / found.cohorts.cw + 1 / found.cohorts.cr)
    t = heads[0].cohen_d / error
    p = float(2 * norm.sf(abs(t)))
    return {
        "standard_error": error,
        "t": t,
        "p": p,
        "p_of_maximum": largest_effect_p_value(
            t, len(heads), found.cohorts.cw + found.cohorts.cr - 2
        ),
        "bonferroni": min(1.0, p * len(heads)),
        "expected_maximum": expected_maximum_of_normals(len(heads)),
        "intervals": {
            str(i): _interval(head.cohen_d, found.cohorts.cw, found.cohorts.cr)
            for i, head in enumerate(heads[:10], start=1)
        },
        "lowest": _interval(heads[-1].cohen_d, found.cohorts.cw, found.cohorts.cr),
    }


def _interval(d: float, n_first: int, n_second: int) -> Values:
    """Large-sample interval of Cohen's d (Hedges & Olkin 1985), as if the head were not chosen."""
    n = n_first + n_second
    half = float(norm.ppf(0.975)) * math.sqrt(1 / n_first + 1 / n_second + d * d / (2 * n))
    return with_interval(d, Interval(d - half, d + half, 0.95), "Hedges-Olkin", n)


def _groups(model: str, file: str) -> dict[str, Group]:
    return {
        f"attr.{model}": Group((file,), partial(ranking, model=model)),
        f"attr.{model}.consistency": Group((file,), partial(consistency, model=model)),
        f"attr.{model}.null": Group((file,), partial(chance, model=model)),
    }


GROUPS: dict[str, Group] = {
    key: group for model, file in FILES.items() for key, group in _groups(model, file).items()
}
