"""Runs of ``measure``: the meter, short answers, and whether free answers are asserted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from arcs.evaluate.config import BASE, Condition
from arcs.gates import Gates
from arcs.held_out import prompts_of
from arcs.instrument import Only, differing
from arcs.measure.config import METER, SHORT_ANSWERS, MeasureConfig, conditions_of, parse
from arcs.measure.judged import identity_of
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS
from arcs.settling.measured import (
    RECORDS,
    Row,
    claims_of,
    differences,
    free,
    instrument_of,
    items_of,
    judged,
    kinds,
    require_settleable,
    with_labels,
)
from arcs.settling.subject import OWN, RECALL, OpenClaim, Piece, Pool, Seen
from arcs.settling.unused import Source, file_of, in_hash_order, pools
from arcs.subruns import sub_run
from backends.lora import adapter_sha256
from evals.items.load import items_sha256
from evals.items.records import Item, MeterItem
from evals.judges.lexical import LexicalJudge
from evals.meter import AXES
from models.errors import UserError
from models.store import prepare

MEASURE = "measure"
STEPS = 50
"""Whole steps that the mean size of a contrast's difference is divided into for the exact test."""
SAME = ("instrument", "quantity", "ids_counted", "instruction", "decoding", "n_predict")
"""What of an instrument's description the readings of all looks must share."""


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
        require_settleable(run, config)
        metrics = StoredRun(run).metrics
        if metrics is None:
            raise UserError(f"{run}: it is not finished; finish it with --run first")
        own = cls(run, manifest, metrics, gates, config, (), ())
        open_ones, others = [], []
        for name, part, claim, why in claims_of(config, metrics):
            called = f"{name}: {part}" if part else name
            if why is None:
                open_ones.append(own._open(called, name, part, claim))
            else:
                others.append((called, why))
        return replace(own, claims=tuple(open_ones), others=tuple(others))

    def _open(self, called: str, name: str, part: str, claim: Mapping[str, Any]) -> OpenClaim:
        smallest = float(claim["gate"]["smallest_effect"])
        if self.config.instrument != METER:
            return OpenClaim(called, name, part, "", claim, smallest, None)
        found = OpenClaim(called, name, part, part, claim, smallest, None)
        sizes = [abs(value) for value in self.values(found, Piece(OWN, self.run, first=True))]
        family = len(self.manifest["measurement"]["axes"])
        return replace(found, unit=float(np.mean(sizes)) / STEPS, family=family)

    @property
    def files(self) -> tuple[str, ...]:
        """What the claims rest on."""
        slugs = [one.slug for one in conditions_of(self.config)]
        labels = [f"{slug}.labels.jsonl" for slug in slugs] if free(self.config) else []
        return (METRICS, *(f"{slug}.jsonl" for slug in slugs), *labels)

    @property
    def first_counts(self) -> Mapping[str, int]:
        """Questions, or items of each axis."""
        if self.config.instrument != METER:
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
        return kinds(self.config)

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
        return differences(self.config, *self._sides(claim, [piece]))

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        """By the rules of the instrument, over all pieces."""
        return judged(self.config, claim, *self._sides(claim, pieces), gates)

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
        part = Part(instrument_of(self.config, pool.title, [by_id[one] for one in ids]),
                    Only(frozenset(ids), self._check))  # fmt: skip
        with sub_run(path, MEASURE, config.model_dump(mode="json")) as own:
            if not (own.path / METRICS).exists():
                run_measure(config, own, reporter, part=part)

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

    def _items(self, source: str) -> tuple[Any, ...]:
        return items_of(self.config, source)

    def _source(self, source: str, items: Sequence[Item]) -> Source:
        """The own set in its file's order, in which domains take turns and limits are taken."""
        title = RECORDS[self.config.instrument][0] if source == OWN else Path(source).name
        asked, by_id = prompts_of(items), {one.id: one for one in items}
        order = [one.id for one in items] if source == OWN else in_hash_order(list(by_id))
        groups = {item: one.axis if isinstance(one := by_id[item], MeterItem) else ""
                  for item in order}  # fmt: skip
        return Source(source, title, items_sha256(list(items)),
                      {item: asked[item] for item in order}, groups)  # fmt: skip

    def _rows(self, path: Path, condition: str) -> list[Row]:
        slug = next(one.slug for one in conditions_of(self.config) if one.name == condition)
        stored = StoredRun(path)
        rows: list[Row] = list(stored.lines(f"{slug}.jsonl"))
        if not free(self.config):
            return rows
        return with_labels(self.config, condition, rows, list(stored.lines(f"{slug}.labels.jsonl")))

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
        if free(self.config) and self.manifest.get("judge") != identity_of(LexicalJudge()):
            raise UserError(f"{self.run}: its labels are by other rules than this threearc's, so "
                            "its answers and new ones cannot be pooled; measure all of them "
                            "anew")  # fmt: skip
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
