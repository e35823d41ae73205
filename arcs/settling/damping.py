"""Runs of ``arc2``: whether damping the chosen heads brings the disposition about, on more items.

Heads, lambdas, cohorts and axis stay what they are; only items of the sweep are added. What is said
of all of them together is what the run's words say (:mod:`arcs.arc2.rules`), at the level of the
look. One number is counted for plan and levels: the change of the axis under the strongest damping,
or of the content where that alone is open.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from arcs.arc2.config import ARC, MORE, Arc2Config, parse
from arcs.arc2.effects import Effect, Values, differences, fewest_unchanged
from arcs.arc2.findings import AtPoint, Sweep, evidence, item_means, right
from arcs.arc2.further import (
    More,
    pooled,
    run_more,
    selection_of,
)
from arcs.arc2.metrics import faults
from arcs.arc2.pipeline import described_meter
from arcs.arc2.rules import Evidence, State, Word, rulings, verdict
from arcs.arc2.selection import BOTTOM, TOP, UNCHANGED, points
from arcs.arc2.stages import answers_store, meter_store
from arcs.claims import ReasonCode, Verdict
from arcs.gates import Gates
from arcs.instrument import differing
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS, canonical_json
from arcs.settling.damped_items import (
    QUESTIONS,
    kinds,
    named,
    sha256_of,
    source_of,
)
from arcs.settling.damped_rows import Swept, finished, items_of
from arcs.settling.damped_run import (
    only_content_is_open,
    require_poolable,
    said_beside,
    why_not_settled,
)
from arcs.settling.measuring import STEPS
from arcs.settling.subject import OWN, OpenClaim, Piece, Pool, Seen
from arcs.settling.unused import pools
from arcs.subruns import sub_run
from models.errors import UserError
from models.store import prepare

DAMPING = "damping"
AXIS, CONTENT = "axis", "content"
SAME = ("chat", "gates")
"""What of a manifest all looks must share."""
OF_ITEMS = frozenset({"items", "items_sha256", "ids_sha256", "dataset", "dataset_sha256"})
"""What of the labels' description may differ: which items they are of."""


@dataclass(frozen=True)
class Damping:
    """See :class:`arcs.settling.subject.Subject`."""

    run: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    gates: Gates
    config: Arc2Config
    """With the run's engine, and without what stands beside its claim (tasks, GGUF, controls that
    no rule reads)."""
    claims: tuple[OpenClaim, ...]
    others: tuple[tuple[str, str], ...]
    kind: str = ARC

    @classmethod
    def of(cls, run: Path, manifest: Mapping[str, Any], gates: Gates) -> Damping:
        """Read a finished run. Raises UserError for what cannot be gone on with."""
        metrics = StoredRun(run).metrics
        if metrics is None:
            raise UserError(f"{run}: it is not finished; finish it with --run first")
        config = parse(manifest["config"]).model_copy(
            update={"backend": manifest["backend"], "gguf": None, "tasks": None,
                    "tasks_limit": None, "controls": "strongest"}
        )  # fmt: skip
        why = why_not_settled(metrics)
        if why is not None:
            return cls(run, manifest, metrics, gates, config, (), ((DAMPING, why),))
        require_poolable(run, manifest, metrics, config)
        own = cls(run, manifest, metrics, gates, config, (), tuple(said_beside(manifest, metrics)))
        return replace(own, claims=(own._claim(),))

    # The protocol -------------------------------------------------------------------------------

    @property
    def files(self) -> tuple[str, ...]:
        """What the claim rests on."""
        made = points(selection_of(self._arms), self.config.scales, self.config.controls)
        stores = [answers_store(finished(self.run), one, seed)
                  for one in made for seed in self.config.decodings]  # fmt: skip
        if self._meter is not None:
            stores += [meter_store(finished(self.run), one) for one in made]
        return (METRICS, *(one.path.name for one in stores))

    @property
    def first_counts(self) -> Mapping[str, int]:
        """Prompts and meter items of the sweep."""
        found = {}
        if QUESTIONS in self._groups:
            found[QUESTIONS] = len(self._rows.asked)
        if self._meter in self._groups:
            found[str(self._meter)] = len(self._rows.prepared.axis_pairs)
        return found

    @property
    def seconds_per_item(self) -> float | None:
        """All points, by item that is counted; what comes along with it included."""
        phases = (StoredRun(self.run).timing or {}).get("phases") or {}
        made = points(selection_of(self._arms), self.config.scales, self.config.controls)
        known = [phases[f"sweep {one.name}"]["seconds"] for one in made
                 if one is not UNCHANGED and f"sweep {one.name}" in phases]  # fmt: skip
        if len(known) < len(made) - 1 or not known:
            return None
        # lambda 1 was answered before the sweep, with all prompts: it takes as long as any other
        return float(sum(known)) / len(known) * len(made) / self.first_counts[self._group]

    @property
    def kinds(self) -> str:
        """Of files."""
        return kinds(self.config, self._groups)

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        """See the protocol. Items of the run's own set that only come along are a pool apart."""
        self._require_same_items()
        given = [named(one, self.config, self._groups) for one in data]
        found = []
        for group in self._groups:
            own = source_of(OWN, self.config, group)
            more = [source_of(name, self.config, group) for name, of in given if of == group]
            made = pools(own, self._rows.used(group), more, [], say.say)
            if group != self._group:
                made[0] = replace(made[0], source=made[0].title)
            found += made
        return found

    def require_same_edits(self) -> None:
        """See the protocol."""
        if prepare(self.config.model).fingerprint != self.manifest["model"]["fingerprint"]:
            raise UserError(f"{self.config.model}: its weights are no longer those of {self.run}")

    def values(self, claim: OpenClaim, piece: Piece) -> list[float]:
        """Of what is counted, item by item under the strongest damping."""
        found = self._counted(claim, self._rows.of(piece))
        if piece.first:
            self._require_same_number(claim, found)
        return found

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        """By the run's words, over all pieces; lambdas share the alpha of the look."""
        alpha = min(gates.test.alpha * claim.family, self.gates.test.alpha)
        held_to = replace(gates, test=replace(gates.test, alpha=alpha))
        both = pooled([self._rows.of(piece) for piece in pieces])
        whole = replace(both, gates=held_to)
        found = evidence(
            whole, None, faults(replace(both, gates=self.gates), self._rows.prepared.source, None),
            separated=self._separated,
        )  # fmt: skip
        words = rulings(found)
        made = verdict(str(claim.stated["statement"]), found, words)
        counted = _counted_of(found, claim.condition)
        holding = tuple(one.word for one in words if one.state is State.HOLDS)
        said = f"{made.explanation[0].upper()}{made.explanation[1:]}"
        if counted is not None:
            what = f"{claim.one_of_several[0].upper()}{claim.one_of_several[1:]}"
            said += f". {what}: {counted.value:+.3f} of {counted.n} items"
        return Seen(
            made.verdict, _reasons(made.verdict, found.faults, holding),
            None if counted is None else counted.to_json()["interval"],
            None if counted is None else counted.p, said,
        )  # fmt: skip

    def go_on(
        self,
        pool: Pool,
        ids: Sequence[str],
        claims: Sequence[OpenClaim],
        path: Path,
        reporter: Reporter,
    ) -> None:
        """See the protocol."""
        del claims
        group = next(group for group, items in pool.items.items() if ids[0] in items)
        every = self._rows.whole_set(pool.source, group)
        if sha256_of(every) != pool.sha256:
            raise UserError(f"{pool.title}: it is no longer the set that was planned with")
        items = items_of(group, every, ids)
        verified = str(self.manifest["model"].get("verification", "not known"))
        more = More(items, self.metrics["axis"]["kind"], self._arms, verified, self._check)
        with sub_run(path, MORE, self.config.model_dump(mode="json")) as own:
            if not (own.path / METRICS).exists():
                run_more(self.config, own, reporter, more)

    # What is counted ----------------------------------------------------------------------------

    def _claim(self) -> OpenClaim:
        stored = self.metrics["evidence"]
        about = CONTENT if only_content_is_open(self.metrics, self.gates) else AXIS
        counted = stored[about][-1]
        claim = self.metrics["claim"]
        on_meter = self.metrics["axis"]["kind"] == "meter"
        rate = not on_meter if about == AXIS else self.config.labels != "meter"
        what = self.metrics["axis"]["measure"] if about == AXIS else (
            "accuracy" if rate else "log-likelihood of the meter's texts")  # fmt: skip
        groups = self._groups
        own = str(self._meter) if not rate else QUESTIONS
        found = OpenClaim(
            DAMPING, about, "", own,
            {"statement": claim["statement"], "verdict": claim["verdict"],
             "reasons": claim["reasons"], "n_items": counted["n"], "delta": counted["value"],
             "interval": counted["interval"], "p_value": counted["p"]},
            float(counted["smallest"]), None,
            family=sum(1 for scale in self.config.scales if scale < 1), family_of="lambdas",
            in_points=rate, beside=tuple(group for group in groups if group != own),
            one_of_several=f"the change of {what} at {counted['name']}",
            fewest=self._fewest(own),
        )  # fmt: skip
        if rate and len(self.config.decodings) == 1:
            return found
        sizes = np.abs(self._counted(found, self._rows.of(Piece(OWN, self.run, first=True))))
        return replace(found, unit=(float(sizes.mean()) if len(sizes) else 0.0) / STEPS or 1.0)

    def _fewest(self, group: str) -> int:
        """Items with which over-hedging could be excluded, if no right answer is hedged more.

        At half of alpha, since the last look has not all of it; the share of answers that are
        right before and after is taken to stay.
        """
        found = self.metrics["evidence"]["over_hedging"]
        states = {one["word"]: one["state"] for one in self.metrics["words"]}
        if not found or states[Word.OVER_HEDGING.value] != State.OPEN.value:
            return 0
        level = 1 - self.gates.test.alpha / 2 / len(found)
        compared: int = min(one["n"] for one in found)
        times = fewest_unchanged(self.gates.smallest_effect.rate, level) / compared
        return math.ceil(times * self.first_counts[group])

    def _counted(self, claim: OpenClaim, sweep: Sweep) -> list[float]:
        def values(at: AtPoint) -> Values:
            if claim.condition == AXIS:
                return sweep.axis_values(at)
            if self.config.labels == "meter":
                return at.likelihoods
            return item_means(at.answers, right)

        return differences(values(sweep.base), values(sweep.of_arm(TOP)[-1])).tolist()

    def _require_same_number(self, claim: OpenClaim, values: Sequence[float]) -> None:
        """Raise UserError where the run's own items do not give its own number."""
        stated, n = float(claim.stated["delta"]), int(claim.stated["n_items"])
        mean = float(np.mean(values)) if values else 0.0
        if len(values) != n or not np.isclose(mean, stated, rtol=1e-9, atol=1e-12):
            raise UserError(
                f"{self.run}: {claim.one_of_several} comes to {mean:+.4f} of {len(values)} items "
                f"here, and {stated:+.4f} of {n} in the run; its files, or threearc's rules, have "
                "changed: run arc2 anew"
            )

    # What lies on disk --------------------------------------------------------------------------

    @property
    def _arms(self) -> Mapping[str, Sequence[Sequence[int]]]:
        """Those that a rule reads: the other end of the ranking is only shown."""
        return {arm: heads for arm, heads in self.manifest["selection"]["arms"].items()
                if arm != BOTTOM}  # fmt: skip

    @property
    def _separated(self) -> Mapping[str, Any]:
        """What the run's ranking said, which is not made again."""
        stored = self.metrics["evidence"]
        return {"separable": stored["separable"], "too_small": stored["too_small"],
                "largest_separation": stored["largest_separation_not_excluded"]}  # fmt: skip

    @property
    def _meter(self) -> str | None:
        """The meter's axis, where it is read at each point."""
        read = self.manifest.get("meter")
        return None if read is None else str(read["axis"])

    @property
    def _groups(self) -> tuple[str, ...]:
        """Groups of items that the words rest on, what is counted first."""
        found = [] if self.config.labels == "meter" else [QUESTIONS]
        if self.metrics["axis"]["kind"] == "meter":
            found.append(str(self._meter))
        return tuple(found)

    @property
    def _group(self) -> str:
        return self.claims[0].group

    @cached_property
    def _rows(self) -> Swept:
        return Swept(self.run, self.config, self.metrics["axis"]["kind"], self._arms)

    # The instrument -----------------------------------------------------------------------------

    def _require_same_items(self) -> None:
        """Raise UserError where the run's items are no longer those it was asked."""
        prepared = self._rows.prepared
        now = json.loads(canonical_json({
            "labels": {**prepared.source.describe(), "n_predict": prepared.n_predict},
            "meter": described_meter(prepared),
        }))  # fmt: skip
        changed = next((name for name, one in now.items() if self.manifest.get(name) != one), None)
        if changed is not None:
            raise UserError(f"{self.run}: its {changed} have other items, words or rules now than "
                            "in the run, so old and new ones cannot be pooled; run arc2 "
                            "anew")  # fmt: skip

    def _check(self, engine: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Raise UserError where new items would be answered, read or labelled otherwise."""
        for key in SAME:
            if manifest.get(key) != self.manifest.get(key):
                raise UserError(f"{self.run}: {key} was another when it was run, so its items and "
                                "new ones cannot be pooled; run arc2 anew")  # fmt: skip
        was, now = (
            {key: value for key, value in one["labels"].items() if key not in OF_ITEMS}
            for one in (self.manifest, manifest)
        )
        changed = next((key for key in (*was, *now) if was.get(key) != now.get(key)), None)
        if changed is not None:
            raise UserError(f"{self.run}: the labels' {changed} was {was.get(changed)}, and would "
                            f"be {now.get(changed)} for new items; settle where it was run, or run "
                            "arc2 anew")  # fmt: skip
        answered = self.manifest["engine"]
        other = differing(answered, engine)
        if other is not None:
            raise UserError(
                f"{self.run}: it was run with {other} {answered.get(other)}, and new items would "
                f"be with {engine.get(other)}; settle where it was run, or run arc2 anew"
            )


def _counted_of(found: Evidence, about: str) -> Effect | None:
    """Under the strongest damping; None where so few answers are right by now that a loss of
    content could not be seen."""
    if about == AXIS:
        return found.axis[-1]
    return found.content[0][-1] if found.content else None


def _reasons(
    decided: Verdict, failed: Sequence[str], holding: tuple[Word, ...]
) -> tuple[StrEnum, ...]:
    if decided is Verdict.INVALID:
        return tuple(ReasonCode(one.partition(":")[0].replace(" ", "_")) for one in failed)
    if decided is Verdict.INCONCLUSIVE:
        return (ReasonCode.UNDERPOWERED,)
    return tuple(one for one in holding if decided is Verdict.REFUTED or one is Word.CLEAN_POSITIVE)
