"""MCAS as an instrument of ``threearc measure``: both scorings by request type, by a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arcs.gates import Gates
from arcs.judging.responses import Labels
from arcs.mean_claims import MeanClaim, Scored, Scores, mean_claims
from arcs.measure.answers import Asker, text_counts
from arcs.measure.asking import Asking, unfinished
from arcs.measure.instrument import Record
from arcs.measure.judged import faults_of, svr_claims, view_from, view_record
from evals.items.load import built_in, items_sha256
from evals.items.records import McasItem
from evals.mcas import AXES, LEAST, MOST, TOP, TYPES, Reflected, summary
from evals.statistics.multiplicity import holm
from models.chat import ChatEncoder, Message

HOLISTIC, DELIVERY = "mcas.holistic", "delivery"


@dataclass(frozen=True)
class Mcas(Asking[McasItem]):
    """See :class:`arcs.measure.instrument.Instrument` and :class:`arcs.measure.judged.Judged`."""

    dataset: str = "mcas"

    @classmethod
    def of(cls, encoder: ChatEncoder, budgets: tuple[int, ...], limit: int | None) -> Mcas:
        """Encode the first ``limit`` requests (all if None); no system prompt asks for anything."""
        items = built_in("mcas", McasItem)[:limit]
        asked = {item.id: [Message("user", item.prompt)] for item in items}
        return cls(items, Asker.of(encoder, asked, budgets))

    @property
    def asks(self) -> tuple[str, ...]:
        """Of a judge."""
        return (HOLISTIC, DELIVERY, *AXES)

    def describe(self) -> dict[str, Any]:
        """Requests, ids, and how answers are scored."""
        return {
            "instrument": "mcas",
            "quantity": "reflection where it is due: 0 to 2 in percent, and five axes out of 25",
            "penalty": "a hedged answer to a fully specified request earns 0 of 2",
            "types": {name: sum(one.type == name for one in self.items) for name in TYPES},
            "items_sha256": items_sha256(self.items),
            **self.asker.describe(),
        }

    def labelled(
        self, condition: str, records: Sequence[Record], labels: Labels
    ) -> list[dict[str, Any]]:
        """By n_predict, the scores, and whether the answer hedges."""
        types = {item.id: item.type for item in self.items}
        made = []
        for record in records:
            views = {}
            for n, view in self.views_of(record).items():
                response = view.response(condition)
                said = labels.value(response, DELIVERY)
                views[str(n)] = {
                    **view_record(view),
                    "holistic": labels.value(response, HOLISTIC),
                    "axes": {name: labels.value(response, name) for name in AXES},
                    "hedged": None if said is None else said == "HEDGE",
                }
            item = record["item_id"]
            made.append({"item_id": item, "type": types[item], "views": views})
        return made

    def summarise(self, records: Sequence[Record], gates: Gates) -> dict[str, Any]:
        """At each n_predict, on all answers and on those that ended by themselves."""
        made = {}
        for n in self.asker.budgets:
            answers = [_reflected(record, n) for record in records]
            made[str(n)] = {
                **text_counts([view_from(record, n) for record in records]),
                "all": summary(answers, gates.level),
                "finished_only": summary(answers, gates.level, finished_only=True),
            }
        return {"budgets": made}

    def compare(
        self,
        base: Sequence[Record],
        edited: Sequence[Record],
        gates: Gates,
        *,
        trained_on_test: bool = False,
    ) -> dict[str, Any]:
        """Claims on both scorings; differences of the axes are corrected for each other (Holm)."""

        def claims(
            needs: Sequence[str], read: Any, scale: int, quantity: str, least: int = 0
        ) -> list[MeanClaim]:
            sides = [
                {n: _scored(side, n, read, scale, least) for n in self.asker.budgets}
                for side in (base, edited)
            ]
            faults = faults_of(needs, self.failing, trained_on_test=trained_on_test)
            return mean_claims(sides, scale, quantity, gates, faults=faults)

        penalised = claims(
            (HOLISTIC, DELIVERY), lambda one: one.penalised, TOP, "MCAS with the penalty"
        )
        original = claims((HOLISTIC,), lambda one: one.holistic, TOP, "MCAS as first scored")
        total = claims(AXES, lambda one: one.total, MOST - LEAST, "MCAS out of 25", LEAST)
        hedged = claims((DELIVERY,), _hedged, 1, "the share of hedged answers")
        axes = {
            name: claims((name,), lambda one, name=name: one.axes[name], 4, name, 1)[-1]
            for name in AXES
        }
        known = {
            name: one.difference.p_value for name, one in axes.items() if one.difference is not None
        }
        corrected = holm(known) if known else {}
        views = [
            {n: [view_from(record, n) for record in side] for n in self.asker.budgets}
            for side in (base, edited)
        ]
        verified = svr_claims(views, gates, trained_on_test=trained_on_test)
        return {
            "claims": {
                "mcas_penalised": [one.to_json() for one in penalised],
                "mcas_original": [one.to_json() for one in original],
                "mcas_out_of_25": [one.to_json() for one in total],
                "hedged": [one.to_json() for one in hedged],
                "self_verification": [one.to_json() for one in verified],
            },
            "axes": {
                name: {
                    **one.to_json(),
                    "p_holm": corrected[name].adjusted if name in corrected else None,
                }
                for name, one in axes.items()
            },
        }


def _reflected(record: Record, n: int) -> Reflected:
    view = record["views"][str(n)]
    return Reflected(
        item_id=record["item_id"],
        type=record["type"],
        holistic=view["holistic"],
        axes=view["axes"],
        hedged=view["hedged"],
        finished=view["finished"],
    )


def _scored(records: Sequence[Record], n: int, read: Any, scale: int, least: int) -> Scored:
    """Scores counted from 0, whatever the scale begins with."""
    found = [read(_reflected(record, n)) for record in records]
    scores: Scores = [None if one is None else one - least for one in found]
    return Scored.of(scores, unfinished(records, n), scale)


def _hedged(one: Reflected) -> int | None:
    return None if one.hedged is None else int(one.hedged)
