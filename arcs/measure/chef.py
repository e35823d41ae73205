"""Chef answers as an instrument of ``threearc measure``: coverage and delivery, by a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arcs.data.sets import BUILT_IN, generator_not_independent
from arcs.gates import Gates
from arcs.judging.responses import Labels
from arcs.mean_claims import Scored, mean_claims
from arcs.measure.answers import Asker, text_counts
from arcs.measure.asking import Asking, assertion_scores, unfinished
from arcs.measure.instrument import Record
from arcs.measure.judged import faults_of, svr_claims, view_from, view_record
from evals.coverage import Covered, coverage
from evals.delivery import Judged, delivery_shifts, delivery_table
from evals.items.load import built_in, items_sha256
from evals.items.records import CLAIMS, ChefItem
from models.chat import ChatEncoder, Message

RIGHT = 2
"""Claims from which on an answer counts as right in the primary 2 x 2 table: half of them."""
COVERAGE, DELIVERY = "coverage", "delivery"


@dataclass(frozen=True)
class Chef(Asking[ChefItem]):
    """See :class:`arcs.measure.instrument.Instrument` and :class:`arcs.measure.judged.Judged`."""

    dataset: str = "chef_fresh"

    @classmethod
    def of(cls, encoder: ChatEncoder, budgets: tuple[int, ...], limit: int | None) -> Chef:
        """Encode the first ``limit`` questions of the fresh set (all if None)."""
        items = built_in("chef_fresh", ChefItem)[:limit]
        asked = {item.id: [Message("user", item.prompt)] for item in items}
        return cls(items, Asker.of(encoder, asked, budgets))

    @property
    def asks(self) -> tuple[str, ...]:
        """Of a judge."""
        return (COVERAGE, DELIVERY)

    def describe(self) -> dict[str, Any]:
        """Questions, ids, and how answers are scored."""
        return {
            "instrument": "chef",
            "quantity": "share of a checklist's claims that an answer states; asserted or hedged",
            "right_from_claims": RIGHT,
            "claims": CLAIMS,
            "generator_not_independent": [
                name
                for name in BUILT_IN
                if name != self.dataset and generator_not_independent(self.dataset, name)
            ],
            "items_sha256": items_sha256(self.items),
            **self.asker.describe(),
        }

    def labelled(
        self, condition: str, records: Sequence[Record], labels: Labels
    ) -> list[dict[str, Any]]:
        """By n_predict, for each claim whether it is stated, and whether the answer asserts."""
        made = []
        for record in records:
            views = {}
            for n, view in self.views_of(record).items():
                response = view.response(condition)
                said = labels.value(response, DELIVERY)
                views[str(n)] = {
                    **view_record(view),
                    "covered": list(labels.covered(response)),
                    "asserted": None if said is None else said == "ASSERT",
                }
            made.append({"item_id": record["item_id"], "views": views})
        return made

    def summarise(self, records: Sequence[Record], gates: Gates) -> dict[str, Any]:
        """At each n_predict, on all answers and on those that ended by themselves."""
        return {
            "budgets": {
                str(n): {
                    **text_counts([view_from(record, n) for record in records]),
                    "all": _scores(records, n, finished_only=False),
                    "finished_only": _scores(records, n, finished_only=True),
                }
                for n in self.asker.budgets
            }
        }

    def compare(
        self,
        base: Sequence[Record],
        edited: Sequence[Record],
        gates: Gates,
        *,
        trained_on_test: bool = False,
    ) -> dict[str, Any]:
        """Claims on coverage, assertion and self-verification; differences of the derived rates."""
        sides = (base, edited)
        faults = {
            name: faults_of((name,), self.failing, trained_on_test=trained_on_test)
            for name in self.asks
        }
        covered = mean_claims(
            [{n: _coverage_scores(side, n) for n in self.asker.budgets} for side in sides],
            CLAIMS, "checklist coverage", gates, faults=faults[COVERAGE],
        )  # fmt: skip
        asserted = mean_claims(
            [{n: assertion_scores(side, n) for n in self.asker.budgets} for side in sides],
            1, "the assertion rate", gates, faults=faults[DELIVERY],
        )  # fmt: skip
        views = [
            {n: [view_from(record, n) for record in side] for n in self.asker.budgets}
            for side in sides
        ]
        verified = svr_claims(views, gates, trained_on_test=trained_on_test)
        return {
            "claims": {
                "coverage": [one.to_json() for one in covered],
                "assertion_rate": [one.to_json() for one in asserted],
                "self_verification": [one.to_json() for one in verified],
            },
            "differences": {
                str(n): {
                    "all": _shifts(base, edited, n, gates.level, finished_only=False),
                    "finished_in_both": _shifts(base, edited, n, gates.level, finished_only=True),
                }
                for n in self.asker.budgets
            },
        }


def _scores(records: Sequence[Record], n: int, *, finished_only: bool) -> dict[str, Any]:
    answers = [_covered(record, n) for record in records]
    return {
        "coverage": coverage(answers, finished_only=finished_only).to_json(),
        "delivery": {
            f"{threshold / CLAIMS:g}": delivery_table(
                [_judged(record, n, threshold) for record in records], finished_only=finished_only
            ).to_json()
            for threshold in range(1, CLAIMS + 1)
        },
    }


def _shifts(
    base: Sequence[Record],
    edited: Sequence[Record],
    n: int,
    level: float,
    *,
    finished_only: bool,
) -> dict[str, Any]:
    """Edited minus base of the rates of the 2 x 2 table, by the threshold of right."""
    pairs = [
        (b, e)
        for b, e in zip(base, edited, strict=True)
        if not finished_only or (b["views"][str(n)]["finished"] and e["views"][str(n)]["finished"])
    ]
    made: dict[str, Any] = {"n": len(pairs)}
    for threshold in range(1, CLAIMS + 1):
        found = delivery_shifts(
            [_judged(b, n, threshold) for b, _ in pairs],
            [_judged(e, n, threshold) for _, e in pairs],
            level,
        )
        made[f"{threshold / CLAIMS:g}"] = {
            name: None if one is None else one.to_json() for name, one in found.items()
        }
    return made


def _covered(record: Record, n: int) -> Covered:
    view = record["views"][str(n)]
    return Covered(record["item_id"], tuple(view["covered"]), view["finished"])


def _judged(record: Record, n: int, threshold: int) -> Judged:
    view = record["views"][str(n)]
    share = _covered(record, n).share
    right = None if share is None else share >= threshold / CLAIMS
    return Judged(record["item_id"], right, view["asserted"], view["finished"])


def _coverage_scores(records: Sequence[Record], n: int) -> Scored:
    shares = [_covered(record, n).share for record in records]
    counts = [None if share is None else round(share * CLAIMS) for share in shares]
    # a claim that is stated stays stated; the others may still come
    return Scored.of(counts, unfinished(records, n), CLAIMS, keeps=True)
