"""metrics.json of an Arc 2 run: rankings, every point of the sweep, the words, the claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from arcs.arc2 import stages
from arcs.arc2.attribution import Ranking
from arcs.arc2.config import Arc2Config
from arcs.arc2.dispositions import Disposition, Labelled
from arcs.arc2.effects import Effect
from arcs.arc2.findings import AtPoint, Sweep, evidence, item_means, restricted, right
from arcs.arc2.prompts import parts
from arcs.arc2.rules import Evidence, rulings, verdict
from arcs.arc2.selection import BASE, RANDOM, TOP, UNCHANGED, Point, Selection, points
from arcs.arc2.sources import Judged as JudgedSource
from arcs.arc2.sources import Source
from arcs.arc2.summaries import summary
from arcs.arc2.transcripts import COHORTS, SWEEP, TASKS, Answers, transcripts
from arcs.runs import RunDirectory
from arcs.transcripts import TRANSCRIPTS, write_transcripts
from backends.interface import Prompt
from evals.statistics.bootstrap import bootstrap_mean

if TYPE_CHECKING:
    from arcs.arc2.cohorts import Cohorts
    from arcs.arc2.pipeline import Axis, Prepared

SCHEMA = "threearc-arc2-1"


def build(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    cohorts: Cohorts,
    axis: Axis,
    rankings: Mapping[str, Ranking],
    selection: Selection,
) -> dict[str, Any]:
    """Everything that follows from the stored records; nothing is asked of an engine."""
    from arcs.arc2.gguf_sweep import gguf_answers, read_gguf

    manifest, gates = run.manifest(), prepared.gates
    split = parts(prepared.source.prompts, config)
    asked = [one.item_id for one in split.swept]
    sweep = read_sweep(config, run, prepared, axis.kind, selection, asked)
    ranking = rankings[config.rank_by]
    validity = (
        prepared.source.validity(gates) if isinstance(prepared.source, JudgedSource) else None
    )
    whole = sweep_answers(
        run, prepared.source, prepared.source.prompts, (config.decodings[0],), UNCHANGED
    )
    found = evidence_of(config, prepared, sweep, whole, validity, ranking)
    words = rulings(found)
    statement = statement_of(config, prepared, axis, sweep, manifest["model"]["name"])
    level = gates.level
    tasks = tasks_answers(config, run, prepared, selection)
    through_gguf = gguf_answers(config, run, prepared, selection)
    said = {name: at.answers for name, at in sweep.points.items() if name != BASE}
    every_seed = [one for one in sweep.base.answers if one.seed != config.decodings[0]]
    write_transcripts(
        run.path / TRANSCRIPTS,
        transcripts(
            prepared,
            Answers({BASE: (*whole, *every_seed), **said}, tasks,
                    {point.name: found for point, found in through_gguf.items()}),
            {COHORTS: cohorts.item_ids, SWEEP: asked},
        ),
    )  # fmt: skip
    return {
        "schema_version": SCHEMA,
        "alpha": gates.test.alpha,
        "model": manifest["model"],
        "disposition": {"name": config.disposition, "meaning": prepared.disposition.meaning},
        "measures": manifest["measures"],
        "cohorts": cohorts.to_json(),
        "axis": {**axis.to_json(), "smallest": sweep.smallest_axis},
        "prompts": manifest["prompts"],
        "baseline": summary(whole, level),
        "rankings": {name: one.to_json(gates.test.alpha) for name, one in rankings.items()},
        "selection": manifest["selection"],
        "sweep": points_json(sweep),
        "tasks": tasks_json(tasks, prepared),
        "evidence": evidence_json(found),
        "judge": validity,
        "words": [one.to_json() for one in words],
        "claim": verdict(statement, found, words).to_json(),
        "gguf": read_gguf(config, run, prepared, axis, through_gguf) if through_gguf else None,
        "config": config.model_dump(mode="json"),
        "made_with": {
            k: v for k, v in manifest.items() if k not in ("config", "command", "arc", "measures")
        },
    }


def evidence_of(
    config: Arc2Config,
    prepared: Prepared,
    sweep: Sweep,
    whole: Sequence[Labelled],
    validity: Mapping[str, Any] | None,
    ranking: Ranking | None,
) -> Evidence:
    """What the words are decided from; ``whole``: the unchanged model's answers to all prompts."""
    split = parts(prepared.source.prompts, config)
    ranked = {one.item_id for one in split.ranked}
    first = [one for one in whole if one.item_id in ranked]
    failed = faults(sweep, prepared.source, validity, first)
    return evidence(sweep, ranking, failed, split.chosen_on_same)


def statement_of(
    config: Arc2Config, prepared: Prepared, axis: Axis, sweep: Sweep, model: str
) -> str:
    """What the run claims of ``model``."""
    smallest = prepared.gates.smallest_effect
    content = (
        f"log-likelihood; a loss that matters: {smallest.loss:g} nats per token"
        if prepared.source.name == "meter"
        else f"accuracy; a loss that matters: {smallest.rate:g}"
    )
    return (
        f"damping the {config.top_k} heads of {model} that rank highest by "
        f"{config.rank_by} attribution brings out {config.disposition} ({axis.measure}; a move "
        f"that matters: {sweep.smallest_axis:g} {axis.unit}) and keeps the content ({content})"
    )


def sweep_answers(
    run: RunDirectory,
    source: Source,
    prompts: Sequence[Prompt],
    seeds: Sequence[int | None],
    point: Any,
    what: str = "",
) -> tuple[Labelled, ...]:
    """Labelled answers at one point, at all seeds."""
    found: list[Labelled] = []
    for seed in seeds:
        store = stages.answers_store(run, point, seed, what)
        asked = {one["item_id"] for one in store.records}
        of = [one for one in prompts if one.item_id in asked]
        found += source.label(
            stages.completions(store, of), seed, f"{what}.{point.name}" if what else point.name
        )
    return tuple(found)


def read_sweep(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    axis: str,
    selection: Selection,
    asked: Sequence[str],
) -> Sweep:
    """All points from their stores; of the answers those to ``asked``."""
    prompts = prepared.source.prompts
    axis_ids = {one.item.id for one in prepared.axis_pairs}
    found = {}
    for point in points(selection, config.scales, config.controls):
        answers = sweep_answers(run, prepared.source, prompts, config.decodings, point)
        store = stages.meter_store(run, point)
        read = (stages.contrasts(store), stages.likelihoods(store)) if axis_ids else ({}, {})
        swept = [{k: v for k, v in one.items() if k in axis_ids} for one in read]
        at = AtPoint(point, answers, *swept)
        found[point.name] = restricted(at, asked)
    return Sweep(
        points=found,
        disposition=prepared.disposition,
        axis=axis,
        seeds=config.decodings,
        gates=prepared.gates,
    )


def faults(
    sweep: Sweep,
    source: Source,
    validity: Mapping[str, Any] | None,
    first: Sequence[Labelled] = (),
) -> list[str]:
    """What makes the instrument fail: a judge below its bar, too many missing labels.

    Counted are the labels that are read: at the points that the rules read, right or wrong and
    whether a disposition is shown that a rule asks for; and of the ``first`` answers of the
    unchanged model what the cohorts rest on. Where labels fail at one lambda only, its comparison
    is lost, however few they are among all: so each point fails alone where its missing ones are
    more, by an exact binomial test, than the share that is allowed, and all together where their
    share is larger. An answer without a word is no failure: it is wrong and hedges nothing.
    """
    found, lost = [], []
    if validity is not None and validity["failing"]:
        found.append(f"judge not valid: below its bar in {', '.join(validity['failing'])}")
    if source.name == "meter":
        return found
    limit, alpha = sweep.gates.validity.max_missing_share, sweep.gates.test.alpha
    read = {
        f"answers at {name}": [_unlabelled(one, sweep) for one in at.answers]
        for name, at in sweep.points.items()
        if _is_read(at.point, sweep)
    }
    if first:
        read["answers that the cohorts are formed from"] = [
            _unlabelled_for_cohorts(one, sweep.disposition) for one in first
        ]
    for name, values in read.items():
        missing, n = sum(values), len(values)
        if missing and binom.sf(missing - 1, n, limit) < alpha:
            lost.append(f"infrastructure: {missing} of {n} {name} have no label")
    missing, n = sum(map(sum, read.values())), sum(map(len, read.values()))
    if not lost and missing > limit * n:
        lost.append(f"infrastructure: {missing} of all {n} labels that are read are missing")
    return found + lost


def _is_read(point: Point, sweep: Sweep) -> bool:
    """Whether a rule reads the answers at a point: the other end of the ranking is only shown."""
    if point.arm in (BASE, TOP):
        return True
    strongest = min(one.point.scale for one in sweep.points.values())
    return point.arm.startswith(RANDOM) and point.scale == strongest


def _unlabelled(one: Labelled, sweep: Sweep) -> bool:
    asked = sweep.axis == "text" or sweep.disposition.of_the_wrong
    return one.right is None or (asked and sweep.disposition.shows(one) is None)


def _unlabelled_for_cohorts(one: Labelled, disposition: Disposition) -> bool:
    """Humble's are cells of right or wrong and asserted, the others' what is shown."""
    return disposition.shows(one) is None or (disposition.of_the_wrong and one.right is None)


def points_json(sweep: Sweep) -> list[dict[str, Any]]:
    """Every point: what the answers came to, and its effects against lambda 1."""
    made = []
    effects: dict[str, tuple[dict[str, Effect], ...]] = {
        arm: (
            sweep.axis_effects(arm),
            sweep.content_effects(arm, right, right),
            sweep.likelihood_effects(arm),
        )
        for arm in sweep.arms
    }
    for name, at in sweep.points.items():
        axis, content, likely = effects.get(at.point.arm, ({}, {}, {}))
        made.append(
            {
                "point": name,
                "arm": at.point.arm,
                "lambda": at.point.scale,
                "heads": [list(head) for head in at.point.heads],
                **summary(at.answers, sweep.gates.level),
                "axis": _level(sweep, at),
                "axis_change": axis[name].to_json() if name in axis else None,
                "likelihood_change": likely[name].to_json() if name in likely else None,
                "accuracy_change": content[name].to_json() if name in content else None,
                "texts_changed": _changed(sweep.base.answers, at.answers),
                "by_seed": _by_seed(sweep, at),
            }
        )
    return made


def _level(sweep: Sweep, at: AtPoint) -> dict[str, Any] | None:
    """Mean of the axis over items, with a BCa interval where there is one."""
    values = list(sweep.axis_values(at).values())
    if not values:
        return None
    try:
        interval = bootstrap_mean(values, level=sweep.gates.level).to_json()
    except ValueError:  # fewer than two items, or none differs
        interval = None
    return {"mean": float(np.mean(values)), "interval": interval, "n": len(values)}


def _changed(base: Sequence[Labelled], edited: Sequence[Labelled]) -> int:
    before = {one.key: one.ids for one in base}
    return sum(before[one.key] != one.ids for one in edited)


def _by_seed(sweep: Sweep, at: AtPoint) -> dict[str, Any] | None:
    if len(sweep.seeds) < 2:
        return None
    return {
        str(seed): summary([one for one in at.answers if one.seed == seed], sweep.gates.level)
        for seed in sweep.seeds
    }


def tasks_answers(
    config: Arc2Config, run: RunDirectory, prepared: Prepared, selection: Selection
) -> dict[str, tuple[Labelled, ...]]:
    """Answers to the Python tasks at every point; empty where they were not asked for."""
    source = prepared.tasks
    if source is None:
        return {}
    return {
        point.name: sweep_answers(run, source, source.prompts, config.decodings, point, TASKS)
        for point in points(selection, config.scales, config.controls)
    }


def tasks_json(
    found: Mapping[str, Sequence[Labelled]], prepared: Prepared
) -> list[dict[str, Any]] | None:
    """What the answers of :func:`tasks_answers` came to."""
    if not found:
        return None
    from arcs.arc2.effects import differences, family

    base = item_means(found[UNCHANGED.name], right)
    changes = {
        name: differences(base, item_means(answers, right))
        for name, answers in found.items()
        if name != UNCHANGED.name
    }
    effects = family(
        changes, smallest=prepared.gates.smallest_effect.pass_at_1,
        alpha=prepared.gates.test.alpha, is_rate=True,
    )  # fmt: skip
    return [
        {
            "point": name,
            **summary(answers, prepared.gates.level),
            "change": effects[name].to_json() if name in effects else None,
        }
        for name, answers in found.items()
    ]


def evidence_json(found: Evidence) -> dict[str, Any]:
    """JSON-able form of what the words are decided from."""

    def plain(effects: Sequence[Effect]) -> list[dict[str, Any]]:
        return [{"name": one.name, **one.to_json()} for one in effects]

    return {
        "axis": plain(found.axis),
        "steps": plain(found.steps),
        "trend": plain([found.trend] if found.trend else []),
        "content": plain(found.content[0] if found.content else []),
        "content_if_unfinished": [plain(one) for one in found.content[1:]],
        "against_random": plain(found.against_random),
        "random_rank_p": found.random_rank,
        "over_hedging": None if found.over_hedging is None else plain(found.over_hedging),
        "replicates": plain(found.replicates),
        "replicate_difference": plain(
            [found.replicate_difference] if found.replicate_difference else []
        ),
        "replicated_over": found.replicated_over,
        "separable": found.separable,
        "largest_separation_not_excluded": found.largest_separation,
        "too_small": found.too_small,
        "chosen_on_same": found.chosen_on_same,
        "faults": list(found.faults),
    }
