"""Answers to prompts of one's own: asserted or hedged, cut or not. No checklist is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.gates import Gates
from arcs.judging.responses import Labels
from arcs.mean_claims import mean_claims
from arcs.measure.answers import Asker, text_counts
from arcs.measure.asking import Asking, assertion_scores
from arcs.measure.instrument import Record
from arcs.measure.judged import faults_of, svr_claims, view_from, view_record
from evals.delivery import Rate
from evals.items.load import items_sha256, load
from evals.items.recorded import PromptItem
from models.chat import ChatEncoder, Message

DELIVERY = "delivery"


@dataclass(frozen=True)
class Delivery(Asking[PromptItem]):
    """See :class:`arcs.measure.instrument.Instrument` and :class:`arcs.measure.judged.Judged`."""

    dataset: str = "prompts"

    @classmethod
    def of(
        cls, encoder: ChatEncoder, file: Path, budgets: tuple[int, ...], limit: int | None
    ) -> Delivery:
        """Encode the first ``limit`` prompts of a file (all if None). Raises UserError."""
        items = load(file, PromptItem)[:limit]
        asked = {item.id: [Message("user", item.prompt)] for item in items}
        return cls(items, Asker.of(encoder, asked, budgets))

    @property
    def asks(self) -> tuple[str, ...]:
        """Of a judge."""
        return (DELIVERY,)

    def describe(self) -> dict[str, Any]:
        """Prompts, ids, and what is asked of the answers."""
        return {
            "instrument": DELIVERY,
            "quantity": "asserted or hedged",
            "items_sha256": items_sha256(self.items),
            **self.asker.describe(),
        }

    def labelled(
        self, condition: str, records: Sequence[Record], labels: Labels
    ) -> list[dict[str, Any]]:
        """By n_predict, whether the answer asserts; None where there is no label."""
        made = []
        for record in records:
            views = {}
            for n, view in self.views_of(record).items():
                said = labels.value(view.response(condition), DELIVERY)
                views[str(n)] = {
                    **view_record(view),
                    "asserted": None if said is None else said == "ASSERT",
                }
            made.append({"item_id": record["item_id"], "views": views})
        return made

    def summarise(self, records: Sequence[Record], gates: Gates) -> dict[str, Any]:
        """At each n_predict, on all answers and on those that ended by themselves."""
        del gates
        return {
            "budgets": {
                str(n): {
                    **text_counts([view_from(record, n) for record in records]),
                    "all": _asserted(records, n, finished_only=False),
                    "finished_only": _asserted(records, n, finished_only=True),
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
        """Claims on assertion and self-verification."""
        sides, budgets = (base, edited), self.asker.budgets
        asserted = mean_claims(
            [{n: assertion_scores(side, n) for n in budgets} for side in sides],
            1, "the assertion rate", gates,
            faults=faults_of(self.asks, self.failing, trained_on_test=trained_on_test),
        )  # fmt: skip
        views = [{n: [view_from(record, n) for record in side] for n in budgets} for side in sides]
        verified = svr_claims(views, gates, trained_on_test=trained_on_test)
        return {
            "claims": {
                "assertion_rate": [one.to_json() for one in asserted],
                "self_verification": [one.to_json() for one in verified],
            }
        }


def _asserted(records: Sequence[Record], n: int, *, finished_only: bool) -> dict[str, Any]:
    """The rate among the labelled, and how many have no label."""
    views = [record["views"][str(n)] for record in records]
    kept = [one for one in views if one["finished"] or not finished_only]
    known = [one["asserted"] for one in kept if one["asserted"] is not None]
    return {
        "assertion_rate": Rate(sum(known), len(known)).to_json(),
        "missing": len(kept) - len(known),
    }
