"""Heads, words and claim of an Arc 2 capsule made again from what it holds, by the arc's own rules.

The labels are the stated ones: whether they are those of the answers is another question
(:mod:`arcs.capsules.sweep_labels`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from arcs.arc2 import stages
from arcs.arc2.attribution import HeadReading, Ranking
from arcs.arc2.cohorts import Cohorts
from arcs.arc2.config import Arc2Config
from arcs.arc2.dispositions import Labelled
from arcs.arc2.findings import AtPoint, Sweep, restricted
from arcs.arc2.metrics import evidence_json, evidence_of, statement_of
from arcs.arc2.pipeline import Axis, Prepared, base_pairs, decided, heads_of
from arcs.arc2.prompts import parts
from arcs.arc2.ranking import cohort_answers, ranked_by_ablation, ranked_by_outputs
from arcs.arc2.rules import Evidence, rulings, verdict
from arcs.arc2.selection import BASE, Point, select
from arcs.arc2.sources import plain
from arcs.capsules.sweeping import KIND, norms_of, points_of
from backends.interface import Completion, Prompt
from models.errors import UserError

TOLERANCE = 1e-6
"""Of an effect, the ends of its interval and its p: the same functions on the same stored values;
another numpy may add them up in another order."""
EFFECTS: Mapping[str, str] = {
    "axis": "change of the axis",
    "content": "change of the content",
    "over_hedging": "change of hedging among right answers",
    "trend": "slope of the axis over damping",
    "against_random": "axis, chosen heads minus random ones",
}
"""Groups of the evidence that are shown, each number of them; the words rest on all."""
Key = tuple[str, int | None]
"""A point's name and a seed."""


@dataclass(frozen=True)
class Held:
    """What the capsule holds, joined to the run's questions by item id."""

    document: Mapping[str, Any]
    config: Arc2Config
    prepared: Prepared
    completions: Mapping[Key, Sequence[Completion]]
    """In the order of the questions."""
    stated: Mapping[Key, Sequence[Labelled]]
    """The same answers with the labels that the capsule states."""
    readings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """By point and item, in the order of the meter's items."""

    @classmethod
    def of(cls, document: Mapping[str, Any], config: Arc2Config, prepared: Prepared) -> Held:
        """Raises UserError where answers or readings are not one to each that the run made."""
        rows: dict[Key, list[Mapping[str, Any]]] = {}
        for row in document["rows"]:
            rows.setdefault((row["arm"], row["seed"]), []).append(row)
        read: dict[str, list[Mapping[str, Any]]] = {}
        for row in document["readings"]:
            read.setdefault(row["arm"], []).append(row)
        asked = prepared.source.prompts
        swept = parts(asked, config).swept
        completions, stated, readings = {}, {}, {}
        for point in points_of(document["manifest"], config):
            for seed in config.decodings:
                first = point.name == BASE and seed == config.decodings[0]
                of, key = (asked if first else swept), (point.name, seed)
                joined = _each_once(rows.pop(key, []), [one.item_id for one in of], point, "answer")
                completions[key] = [_completion(one, joined[one.item_id]) for one in of]
                stated[key] = [
                    _labelled(one, joined[one.item_id], prepared, seed) for one in completions[key]
                ]
            pairs = base_pairs(prepared) if point.name == BASE else prepared.axis_pairs
            ids = [one.item.id for one in pairs]
            readings[point.name] = _each_once(read.pop(point.name, []), ids, point, "reading")
        if rows or read:
            raise UserError(f"the capsule has rows at {[*rows, *read][0]}, which is no point of "
                            "its run")  # fmt: skip
        return cls(document, config, prepared, completions, stated, readings)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Of the run."""
        found: Mapping[str, Any] = self.document["manifest"]
        return found

    @property
    def first(self) -> Key:
        """The unchanged model at the first seed: all questions."""
        return BASE, self.config.decodings[0]

    @property
    def cohorts(self) -> Cohorts:
        """As stated."""
        return Cohorts.from_json(self.manifest["cohorts"])

    @property
    def axis(self) -> Axis:
        """As stated."""
        return Axis(**self.manifest["axis"])

    @cached_property
    def ranking(self) -> Ranking | None:
        """By which the heads were chosen; None: what it needs is not in the capsule."""
        config, prepared = self.config, self.prepared
        whole = self.completions[self.first]
        sequences, labels = cohort_answers(self.cohorts, whole, prepared.encoder.stop_ids)
        if config.rank_by == "causal":
            records = self.document["ablations"]
            heads = [head for one in records if (head := stages.head_of(one)) is not None]
            self._require(heads)
            return ranked_by_ablation(config, prepared, heads, records, labels)
        if config.rank_by == "magnitude":
            of, norms = norms_of(self.document["norms"])
            self._require(of)
            names = tuple(one.item_id for one in sequences)
            if len(norms) != len(names):
                raise UserError(f"the capsule holds the heads of {len(norms)} answers, and the "
                                f"cohorts have {len(names)}")  # fmt: skip
            reading = HeadReading(names, of, norms, ())
            return ranked_by_outputs(config.rank_by, config, prepared, reading, labels)
        return None

    def _require(self, heads: Sequence[Any]) -> None:
        if list(heads) != heads_of(self.prepared):
            raise UserError("the capsule ranks other heads than those of its run's layers")

    @cached_property
    def sweep(self) -> Sweep:
        """All points, with the stated labels."""
        config, prepared = self.config, self.prepared
        asked = [one.item_id for one in parts(prepared.source.prompts, config).swept]
        found = {}
        for point in points_of(self.manifest, config):
            answers = tuple(one for seed in config.decodings
                            for one in self.stated[point.name, seed])  # fmt: skip
            read = self.readings[point.name]
            swept = [{one.item.id: read[one.item.id][key] for one in prepared.axis_pairs}
                     for key in ("contrast", "likelihood")]  # fmt: skip
            found[point.name] = restricted(AtPoint(point, answers, *swept), asked)
        return Sweep(found, prepared.disposition, self.axis.kind, config.decodings, prepared.gates)


def _each_once(
    rows: Sequence[Mapping[str, Any]], ids: Sequence[str], point: Point, what: str
) -> dict[str, Mapping[str, Any]]:
    """By item, in the order of ``ids``."""
    found = {row["item_id"]: row for row in rows}
    if len(found) < len(rows) or found.keys() != set(ids):
        raise UserError(f"the capsule's {what}s at {point.name} are {len(rows)}, and not one to "
                        f"each of the {len(ids)} items of its run")  # fmt: skip
    return {one: found[one] for one in ids}


def _completion(prompt: Prompt, row: Mapping[str, Any]) -> Completion:
    return Completion(prompt.item_id, prompt.ids, tuple(row["ids"]), row["finish_reason"], 0.0,
                      near_ties=row["near_ties"])  # fmt: skip


def _labelled(
    one: Completion, row: Mapping[str, Any], prepared: Prepared, seed: int | None
) -> Labelled:
    return plain(one, prepared.encoder, seed, row["asserted"], right=row["right"],
                 open=row["open"], coverage=row["coverage"])  # fmt: skip


def again(held: Held) -> dict[str, Any]:
    """What was decided on the unchanged model, the numbers, the words and the claim."""
    document, config = held.document, held.config
    whole = held.stated[held.first]
    found = evidence_of(config, held.prepared, held.sweep, whole, document["judge"], held.ranking)
    if held.ranking is None:
        found = _separation_as_stated(found, document["evidence"])
    words = rulings(found)
    name = held.manifest["model"]["name"]
    statement = statement_of(config, held.prepared, held.axis, held.sweep, name)
    here = verdict(statement, found, words).to_json()
    stated = document["claims"][KIND]
    return {
        "decided": [*_cohorts_and_axis(held), _heads(held)],
        "numbers": list(_numbers(document["evidence"], evidence_json(found))),
        "words": _words(document["words"], [one.to_json() for one in words]),
        "verdicts": [{
            "claim": KIND, "stated": stated["verdict"], "reasons": stated["reasons"],
            "here": here["verdict"], "here_reasons": here["reasons"], "reproduces": here == stated,
        }],
    }  # fmt: skip


def _separation_as_stated(found: Evidence, stated: Mapping[str, Any]) -> Evidence:
    return replace(found, separable=stated["separable"], too_small=stated["too_small"],
                   largest_separation=stated["largest_separation_not_excluded"])  # fmt: skip


def _cohorts_and_axis(held: Held) -> Iterator[dict[str, Any]]:
    whole = held.stated[held.first]
    contrasts = {name: one["contrast"] for name, one in held.readings[BASE].items()}
    try:
        cohorts, axis = decided(held.config, held.prepared, whole, contrasts)
    except UserError as error:
        yield {"what": "cohorts", "reproduces": False, "why": str(error)}
        return
    # a label that a judge failed to give may have come later: its answer is in no cohort
    later = held.config.label_source.judge is not None
    same = all(
        set(mine) <= set(here) if later else mine == here
        for mine, here in ((held.cohorts.lacking, cohorts.lacking),
                           (held.cohorts.having, cohorts.having))
    )  # fmt: skip
    yield {"what": "cohorts", "reproduces": same,
           "why": f"{len(cohorts.lacking)} lacking and {len(cohorts.having)} having, by the stated "
                  "labels"}  # fmt: skip
    yield {"what": "axis", "reproduces": axis == held.axis, "why": axis.measure}


def _heads(held: Held) -> dict[str, Any]:
    config, ranking = held.config, held.ranking
    if ranking is None:
        return {"what": "heads", "reproduces": None, "why": f"as stated: a {config.rank_by} "
                "ranking needs the heads' mean vectors, which no capsule holds"}  # fmt: skip
    chosen = select(ranking.ordered_heads, config.top_k, config.random_draws, config.seed)
    told = held.manifest["selection"]
    same = chosen.to_json() == told["arms"] and chosen.random_sets == told["random_sets_possible"]
    return {"what": "heads", "reproduces": same,
            "why": f"the first {config.top_k} of {len(ranking.heads)} by the stored "
                   f"{'ablations' if config.rank_by == 'causal' else 'sizes'}, and their "
                   "controls"}  # fmt: skip


def _numbers(stated: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for group, title in EFFECTS.items():
        told = {one["name"]: one for one in stated[group] or ()}
        made = {one["name"]: one for one in here[group] or ()}
        for name in [*told, *(one for one in made if one not in told)]:
            yield {"quantity": f"{title}, {name}", **_effect(told.get(name), made.get(name))}


def _effect(told: Mapping[str, Any] | None, made: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "stated": None if told is None else told["value"],
        "recomputed": None if made is None else made["value"],
        "tolerance": TOLERANCE, "reproduces": False, "why": None,
    }  # fmt: skip
    if told is None or made is None:
        by = "the capsule states no such number" if told is None else "what it holds gives none"
        return {**found, "why": by}
    apart = [abs(a - b) for a, b in zip(_values(told), _values(made), strict=False)]
    alike = told["n"] == made["n"] and len(_values(told)) == len(_values(made))
    return {**found, "n": made["n"], "p_value": made["p"], "interval": made["interval"],
            "reproduces": alike and max(apart) <= TOLERANCE}  # fmt: skip


def _values(effect: Mapping[str, Any]) -> list[float]:
    interval = effect["interval"] or {}
    ends = [interval[end] for end in ("low", "high") if end in interval]
    return [effect["value"], effect["p"], effect["p_adjusted"], *ends]


def _words(
    stated: Sequence[Mapping[str, str]], here: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    told = {one["word"]: one for one in stated}
    differing = [
        {"word": one["word"], "here": one["state"],
         "stated": told[one["word"]]["state"] if one["word"] in told else None}
        for one in here if told.get(one["word"]) != one
    ]  # fmt: skip
    same = len(here) - len(differing)
    return {"n": len(here), "same": same, "differing": differing,
            "reproduces": not differing and len(told) == len(here)}  # fmt: skip
