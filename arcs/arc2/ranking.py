"""Heads ranked from what is stored of the cohorts' answers and of ablations; no engine is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from arcs.arc2 import stages
from arcs.arc2.attribution import (
    HeadReading,
    Ranking,
    causal,
    causal_of_answers,
    directional,
    magnitude,
)
from arcs.arc2.cohorts import Cohorts
from arcs.arc2.config import Arc2Config
from backends.interface import Completion, Head
from backends.sequences import TokenSequence

if TYPE_CHECKING:
    from arcs.arc2.pipeline import Prepared


def cohort_answers(
    cohorts: Cohorts, answers: Sequence[Completion], stop_ids: Sequence[int]
) -> tuple[list[TokenSequence], list[bool]]:
    """What the cohorts answered, without the empty answers, and which of it is of the lacking."""
    by_id = {one.item_id: one for one in answers}
    made = [stages.response_of(by_id[name], stop_ids) for name in cohorts.item_ids]
    told = [one for one in zip(made, cohorts.labels(), strict=True) if one[0] is not None]
    return [one for one, _ in told if one is not None], [lacks for _, lacks in told]


def _given(config: Arc2Config, prepared: Prepared) -> dict[str, Any]:
    """What every ranking is made with."""
    return {"permutations": config.permutations, "top": config.top_k, "seed": config.seed,
            "alpha": prepared.gates.test.alpha}  # fmt: skip


def ranked_by_outputs(
    method: str,
    config: Arc2Config,
    prepared: Prepared,
    reading: HeadReading,
    labels: Sequence[bool],
) -> Ranking:
    """The ``magnitude`` ranking, which asks the norms of ``reading`` alone, or ``directional``."""
    rank = {"magnitude": magnitude, "directional": directional}[method]
    return rank(reading, labels, **_given(config, prepared))


def ranked_by_ablation(
    config: Arc2Config,
    prepared: Prepared,
    heads: Sequence[Head],
    records: Sequence[Mapping[str, Any]],
    labels: Sequence[bool],
) -> Ranking:
    """The causal ranking, from the records of ``ablations.jsonl``."""
    shifts, given = stages.ablation_shifts(records, heads), _given(config, prepared)
    if prepared.causal_pairs:
        unit = f"shift of {prepared.disposition.axis}, nats per token"
        return causal(heads, shifts, unit=unit, **given)
    few = [labels[at] for at in of_each(labels, config.causal_items)]
    return causal_of_answers(heads, shifts, few, **given)


def of_each(labels: Sequence[bool], count: int) -> list[int]:
    """Places of the first ``count`` answers of either cohort, in order."""
    taken = {
        side: [at for at, one in enumerate(labels) if one is side][:count] for side in (True, False)
    }
    return sorted(taken[True] + taken[False])
