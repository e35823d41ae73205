"""Runs of ``measure meter`` and ``measure short-answers``: numbers that need no judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from arcs.claims import ReasonCode, Verdict
from arcs.evaluate.config import BASE, Condition
from arcs.gates import Gates
from arcs.held_out import prompts_of
from arcs.instrument import Only, differing
from arcs.measure.claim import claim_of
from arcs.measure.config import METER, N_PREDICT, SHORT_ANSWERS, MeasureConfig, conditions_of, parse
from arcs.measure.instrument import Instrument
from arcs.measure.meter import Meter, reading_of
from arcs.measure.meter_claims import meter_claim
from arcs.measure.short_answers import ShortAnswers, answer_of
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS
from arcs.settling.opened import why_not
from arcs.settling.statistic import whole_steps
from arcs.settling.subject import OWN, RECALL, OpenClaim, Piece, Pool, Seen, why
from arcs.settling.unused import Source, file_of, in_hash_order, pools
from arcs.subruns import sub_run
from backends.lora import adapter_sha256
from evals.exact_match import bounds, encode_question
from evals.items.load import built_in, items_sha256, load
from evals.items.recall import recall_items
from evals.items.records import Item, MeterItem, ShortAnswer
from evals.meter import AXES, MeterReading, encode_pair
from evals.meter_scores import AxisShift, by_axis, scores
from evals.statistics.bootstrap import student_interval
from evals.statistics.sign_flips import sign_flip_p_value
from models.chat import ChatEncoder
from models.errors import UserError
from models.store import prepare

MEASURE = "measure"
RECALLED = 400
"""Generated short answers that are offered."""
STEPS = 50
"""Whole steps that the mean size of a contrast's difference is divided into for the exact test."""
SETS: Mapping[str, str] = {METER: "meter", SHORT_ANSWERS: "short_answers"}
SAME = ("instrument", "quantity", "ids_counted", "instruction", "decoding", "n_predict")
"""What of an instrument's description the readings of all looks must share."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measuring:
    """See :class:`arcs.settling.subject.Subject`."""

    run: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    gates: Gates
    config: MeasureConfig
    claims: tuple[OpenClaim, ...]
    others: tuple[tuple[str, str], ...]
    kind: str = MEASURE

    @classmethod
    def of(cls, run: Path, manifest: Mapping[str, Any], gates: Gates) -> Measuring:
        """Read a finished run. Raises UserError for what cannot be gone on with."""
        config = parse(manifest["config"])
        if config.instrument not in SETS:
            raise UserError(f"{run}: settle goes on with the meter and short answers, not with "
                            f"{config.instrument}, whose labels need more than items")  # fmt: skip
        metrics = StoredRun(run).metrics
        if metrics is None:
            raise UserError(f"{run}: it is not finished; finish it with --run first")
        own = cls(run, manifest, metrics, gates, config, (), ())
        open_ones, others = [], []
        for name, part, claim in _claims(metrics):
            called = f"{name}: {part}" if part else name
            why = why_not(claim)
            if why is None and claim["gate"]["smallest_effect"] is None:
                why = "its items do not differ from each other, so no effect has a size"
            if why is None:
                open_ones.append(own._open(called, name, part, claim))
            else:
                others.append((called, why))
        return replace(own, claims=tuple(open_ones), others=tuple(others))

    def _open(self, called: str, name: str, part: str, claim: Mapping[str, Any]) -> OpenClaim:
        found = OpenClaim(called, name, part, part, claim,
                          float(claim["gate"]["smallest_effect"]), None)  # fmt: skip
        if self.config.instrument == SHORT_ANSWERS:
            return found
        sizes = [abs(value) for value in self.values(found, Piece(OWN, self.run, first=True))]
        family = len(self.manifest["measurement"]["axes"])
        return replace(found, unit=float(np.mean(sizes)) / STEPS, family=family)

    @property
    def files(self) -> tuple[str, ...]:
        """What the claims rest on."""
        return (METRICS, *(f"{one.slug}.jsonl" for one in conditions_of(self.config)))

    @property
    def first_counts(self) -> Mapping[str, int]:
        """Questions, or items of each axis."""
        if self.config.instrument == SHORT_ANSWERS:
            return {"": len(self._used)}
        groups = [row["axis"] for row in self._rows(self.run, BASE)]
        return {axis: groups.count(axis) for axis in AXES if axis in groups}

    @property
    def seconds_per_item(self) -> float | None:
        """Of the base and all conditions of open claims."""
        phases = (StoredRun(self.run).timing or {}).get("phases") or {}
        wanted = {BASE, *(claim.condition for claim in self.claims)}
        found = [phases.get(f"measure {name}") for name in wanted]
        known = [one["seconds"] / one["counts"]["items"] for one in found
                 if one is not None and one["counts"].get("items")]  # fmt: skip
        return float(sum(known)) if len(known) == len(wanted) else None

    @property
    def kinds(self) -> str:
        """Of a file."""
        if self.config.instrument == METER:
            return "meter items (evals/items/data/METER_CARD.md)"
        return f"short answers (evals/items/data/SHORT_ANSWERS_CARD.md), or {RECALL}, generated"

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        """See the protocol."""
        self._require_same_items()
        own = self._source(OWN, self._items(OWN))
        more = []
        for name in data:
            named = self._named(name)
            more.append(self._source(named, self._items(named)))
        adapters = [one.adapter for one in self._conditions(self.claims) if one.adapter is not None]
        return pools(own, self._used, more, adapters, say.say)

    def require_same_edits(self) -> None:
        """See the protocol."""
        directory = prepare(self.config.model)
        if directory.fingerprint != self.manifest["model"]["fingerprint"]:
            raise UserError(f"{self.config.model}: its weights are no longer those of {self.run}")
        for one in self._conditions(self.claims):
            if one.adapter is not None and (
                adapter_sha256(one.adapter) != self.manifest["adapters"][one.name]["sha256"]
            ):
                raise UserError(f"{one.adapter}: it is no longer the adapter of {self.run}")

    def values(self, claim: OpenClaim, piece: Piece) -> list[float]:
        """Of answers -1, 0 or 1; of the meter, nats per token."""
        base, edited = self._sides(claim, [piece])
        if self.config.instrument == SHORT_ANSWERS:
            return [float(answer_of(e).right) - float(answer_of(b).right)
                    for b, e in zip(base, edited, strict=True)]  # fmt: skip
        return [e["contrast"] - b["contrast"] for b, e in zip(base, edited, strict=True)]

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        """By the rules of the instrument, over all pieces."""
        base, edited = self._sides(claim, pieces)
        if self.config.instrument == METER:
            return _meter(claim, [reading_of(one) for one in base],
                          [reading_of(one) for one in edited], gates)  # fmt: skip
        before, after = ([answer_of(one) for one in side] for side in (base, edited))
        found = claim_of(
            bounds(before), bounds(after), [one.right for one in before],
            [one.right for one in after], self._n_predict, gates,
        )  # fmt: skip
        return Seen.of(found)

    def go_on(
        self,
        pool: Pool,
        ids: Sequence[str],
        claims: Sequence[OpenClaim],
        path: Path,
        reporter: Reporter,
    ) -> None:
        """See the protocol."""
        from arcs.measure.pipeline import Part, run_measure

        every = self._items(pool.source)
        if items_sha256(every) != pool.sha256:
            raise UserError(f"{pool.source}: it is no longer the set that was planned with")
        conditions = self._conditions(claims)
        config = self.config.model_copy(update={
            "adapters": tuple(one.adapter for one in conditions if one.adapter is not None),
            "tempers": tuple(one.name for one in conditions if one.scales is not None),
            "backend": self.manifest["backend"], "limit": None, "allow_overlap": False,
        })  # fmt: skip
        by_id = {one.id: one for one in every}
        part = Part(self._instrument(pool.title, [by_id[one] for one in ids]),
                    Only(frozenset(ids), self._check))  # fmt: skip
        with sub_run(path, MEASURE, config.model_dump(mode="json")) as own:
            if not (own.path / METRICS).exists():
                run_measure(config, own, reporter, part=part)

    def _instrument(
        self, dataset: str, items: Sequence[Item]
    ) -> Callable[[ChatEncoder], Instrument]:
        def meter(encoder: ChatEncoder) -> Instrument:
            chosen = [one for one in items if isinstance(one, MeterItem)]
            axes = tuple(axis for axis in AXES if any(one.axis == axis for one in chosen))
            pairs = tuple(encode_pair(encoder, one) for one in chosen)
            return Meter(pairs, axes, dataset=dataset)

        def answers(encoder: ChatEncoder) -> Instrument:
            chosen = tuple(one for one in items if isinstance(one, ShortAnswer))
            prompts = tuple(encode_question(encoder, one) for one in chosen)
            return ShortAnswers(chosen, prompts, encoder, self._n_predict, dataset=dataset)

        return meter if self.config.instrument == METER else answers

    def _require_same_items(self) -> None:
        """Raise UserError where the set is no longer the one that the run's items are of."""
        by_id = {one.id: one for one in self._items(OWN)}
        lost = next((item for item in self._used if item not in by_id), None)
        if lost is not None:
            raise UserError(f"{self.run}: its item {lost} is no longer in the set, so old and new "
                            "items cannot be pooled; measure all of them anew")  # fmt: skip
        measured = self.manifest["measurement"].get("items_sha256")
        if items_sha256([by_id[item] for item in self._used]) != measured:
            raise UserError(f"{self.run}: its items have other words now than in the run, so old "
                            "and new ones cannot be pooled; measure all of them anew")  # fmt: skip

    @property
    def _n_predict(self) -> int:
        return (self.config.n_predict or (N_PREDICT,))[0]

    @cached_property
    def _used(self) -> list[str]:
        return [row["item_id"] for row in self._rows(self.run, BASE)]

    def _conditions(self, claims: Sequence[OpenClaim]) -> list[Condition]:
        """Edits of these claims; all, where fewer would change their names."""
        wanted = {claim.condition for claim in claims}
        every = [one for one in conditions_of(self.config) if one.name != BASE]
        kept = [one for one in every if one.name in wanted]
        fewer = self.config.model_copy(update={
            "adapters": tuple(one.adapter for one in kept if one.adapter is not None),
            "tempers": tuple(one.name for one in kept if one.scales is not None),
        })  # fmt: skip
        return kept if wanted <= {one.name for one in conditions_of(fewer)} else every

    def _named(self, name: str) -> str:
        recall = name == RECALL and self.config.instrument == SHORT_ANSWERS
        return name if recall else str(file_of(name))

    def _items(self, source: str) -> tuple[Item, ...]:
        found: tuple[Item, ...]
        if source == RECALL:
            return recall_items(fresh=True, n=RECALLED)
        if self.config.instrument == METER:
            found = built_in("meter", MeterItem) if source == OWN else load(Path(source), MeterItem)
        else:
            found = (built_in("short_answers", ShortAnswer) if source == OWN
                     else load(Path(source), ShortAnswer))  # fmt: skip
        return found

    def _source(self, source: str, items: Sequence[Item]) -> Source:
        """The own set in its file's order, in which domains take turns and limits are taken."""
        title = SETS[self.config.instrument] if source == OWN else Path(source).name
        asked, by_id = prompts_of(items), {one.id: one for one in items}
        order = [one.id for one in items] if source == OWN else in_hash_order(list(by_id))
        groups = {item: one.axis if isinstance(one := by_id[item], MeterItem) else ""
                  for item in order}  # fmt: skip
        return Source(source, title, items_sha256(list(items)),
                      {item: asked[item] for item in order}, groups)  # fmt: skip

    def _rows(self, path: Path, condition: str) -> list[Row]:
        slug = next(one.slug for one in conditions_of(self.config) if one.name == condition)
        rows: list[Row] = list(StoredRun(path).lines(f"{slug}.jsonl"))
        return rows

    def _sides(self, claim: OpenClaim, pieces: Sequence[Piece]) -> tuple[list[Row], list[Row]]:
        """Base and edit, item by item, their ids told apart by the piece they are of."""
        found: tuple[list[Row], list[Row]] = ([], [])
        for place, piece in enumerate(pieces):
            base, edited = (
                {row["item_id"]: {**row, "item_id": f"{place}:{row['item_id']}"}
                 for row in self._rows(piece.path, name)
                 if not claim.group or row["axis"] == claim.group}
                for name in (BASE, claim.condition)
            )  # fmt: skip
            if base.keys() != edited.keys():
                raise UserError(
                    f"{piece.path}: {claim.condition} and the base hold different items"
                )
            found[0].extend(base.values())
            found[1].extend(edited[item] for item in base)
        return found

    def _check(self, name: str, engine: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Raise UserError where new items would be read by another instrument."""
        for key in ("chat", "gates"):
            if manifest.get(key) != self.manifest.get(key):
                raise UserError(f"{self.run}: {key} was another when it was run, so its items and "
                                "new ones cannot be pooled; measure all of them anew")  # fmt: skip
        one, two = self.manifest["measurement"], manifest["measurement"]
        changed = next((key for key in SAME if one.get(key) != two.get(key)), None)
        if changed is not None:
            raise UserError(f"{self.run}: the instrument's {changed} was another when it was run, "
                            "so its items and new ones cannot be pooled; measure all of them "
                            "anew")  # fmt: skip
        first = self.manifest["engine"]
        other = differing(first, engine)
        if other is not None:
            raise UserError(
                f"{self.run}: {name} was measured with {other} {first.get(other)}, and new items "
                f"would be with {engine.get(other)}; settle where it was run, or measure all items "
                "anew"
            )


def _claims(metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Condition, axis (empty for short answers), claim."""
    found = []
    for name, condition in metrics["conditions"].items():
        compared = condition["comparison"]
        if compared is None:
            continue
        for axis, claim in (compared.get("claims") or {"": compared.get("claim")}).items():
            found.append((name, axis, claim))
    return found


def _meter(
    claim: OpenClaim, base: Sequence[MeterReading], edited: Sequence[MeterReading], gates: Gates
) -> Seen:
    """One axis, with Student's interval: a bootstrap has no tails as far out as early looks ask."""
    axis = claim.part
    before, after = by_axis(base)[axis], by_axis(edited)[axis]
    values = np.array([a.contrast - b.contrast for b, a in zip(before, after, strict=True)])
    interval = student_interval(values, gates.level)
    p = sign_flip_p_value(whole_steps(values.tolist(), claim.unit))
    shift = AxisShift(len(values), float(values.mean()), interval, float(values.std(ddof=1)),
                      int((values > 0).sum()), int((values == 0).sum()), p, p)  # fmt: skip
    # the gate of the plan: new items must not move what an effect is held against
    found = meter_claim(axis, scores(before)[axis], shift, gates, smallest=claim.smallest)
    return Seen(
        Verdict(found["verdict"]), tuple(ReasonCode(one) for one in found["reasons"]),
        interval.to_json(), p, why(found["explanation"])
        .replace(" (Holm)", ""),
    )  # fmt: skip
