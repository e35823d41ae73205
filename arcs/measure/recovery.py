"""Correction recovery as an instrument of ``threearc measure``: executed, so no judge is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from arcs.gates import Gates
from arcs.held_out import prompts_of
from arcs.mean_claims import Scored, mean_claims
from arcs.measure.answers import CHUNK, Asker, text_counts
from arcs.measure.instrument import Record
from arcs.measure.judged import faults_of, svr_claims
from arcs.trained_on import Asked
from backends.interface import LanguageModel
from evals.delivery import Rate
from evals.humaneval.execution import Execution, Limits, execute_many
from evals.humaneval.extraction import Extraction, extract
from evals.humaneval.outcomes import Outcome
from evals.humaneval.sandbox.level import IsolationLevel
from evals.humaneval.scoring import classify
from evals.items.load import built_in, items_sha256
from evals.items.records import RecoveryItem
from evals.recovery import FEEDBACK, as_asked, as_run, conversation, program
from models.chat import ChatEncoder


@dataclass(frozen=True)
class Recovery:
    """See :class:`arcs.measure.instrument.Instrument`."""

    items: tuple[RecoveryItem, ...]
    asker: Asker
    level: IsolationLevel
    limits: Limits
    chunk: int = CHUNK
    dataset: str = "recovery"

    @classmethod
    def of(
        cls,
        encoder: ChatEncoder,
        budgets: tuple[int, ...],
        limit: int | None,
        level: IsolationLevel,
    ) -> Recovery:
        """Encode the first ``limit`` conversations (all if None); kinds are interleaved."""
        items = built_in("recovery", RecoveryItem)[:limit]
        asked = {item.id: conversation(item) for item in items}
        return cls(items, Asker.of(encoder, asked, budgets), level, Limits())

    @property
    def item_ids(self) -> tuple[str, ...]:
        """In file order."""
        return self.asker.item_ids

    @property
    def asked(self) -> Asked:
        """Each task, as it was first asked."""
        return prompts_of(self.items)

    def describe(self) -> dict[str, Any]:
        """Tasks, ids, feedback, sandbox."""
        return {
            "instrument": "recovery",
            "quantity": "share of scripted failures whose second answer passes all tests",
            "feedback": FEEDBACK,
            "sandbox": self.level.name,
            "items_sha256": items_sha256(self.items),
            **self.asker.describe(),
        }

    def measure(self, model: LanguageModel, places: Sequence[int]) -> list[Record]:
        """Answer at ``places``, and run what the answers hold at each n_predict."""
        answered = self.asker.answer(model, places)
        items = {item.id: item for item in self.items}
        found: dict[tuple[str, int], Extraction] = {}
        for record in answered:
            item = items[record["item_id"]]
            for n, view in self.asker.views(record).items():
                found[item.id, n] = extract(
                    view.text, as_asked(item), style="chat", think_open=view.think_open
                )
        executed = execute_many(
            [
                (key, as_run(items[key[0]]), program(one.code))
                for key, one in found.items()
                if one.code is not None
            ],
            level=self.level,
            limits=self.limits,
            workers=psutil.cpu_count(logical=False) or 1,
        )
        return [{**record, "tries": self._tries(record, found, executed)} for record in answered]

    def _tries(
        self,
        record: Record,
        found: dict[tuple[str, int], Extraction],
        executed: dict[tuple[str, int], Execution],
    ) -> dict[str, Any]:
        made = {}
        for n, view in self.asker.views(record).items():
            key = (record["item_id"], n)
            execution = executed.get(key)
            outcome = classify(found[key], execution, truncated=not view.finished)
            made[str(n)] = {
                "outcome": outcome.value,
                "detail": execution.detail if execution else "",
                "finished": view.finished,
                "unfinished": view.unfinished,
            }
        return made

    def summarise(self, records: Sequence[Record], gates: Gates) -> dict[str, Any]:
        """The share recovered at each n_predict, on all answers and on finished ones."""
        made = {}
        for n in self.asker.budgets:
            views = [self.asker.views(record)[n] for record in records]
            tries = [record["tries"][str(n)] for record in records]
            made[str(n)] = {
                **text_counts(views),
                "all": _rate(tries),
                "finished_only": _rate([one for one in tries if one["finished"]]),
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
        """Claims on recovery and self-verification."""
        sides = [{n: _scored(side, n) for n in self.asker.budgets} for side in (base, edited)]
        faults = faults_of((), frozenset(), trained_on_test=trained_on_test)
        recovered = mean_claims(sides, 1, "correction recovery", gates, faults=faults)
        views = [
            {n: [self.asker.views(record)[n] for record in side] for n in self.asker.budgets}
            for side in (base, edited)
        ]
        verified = svr_claims(views, gates, trained_on_test=trained_on_test)
        return {
            "claims": {
                "recovery": [one.to_json() for one in recovered],
                "self_verification": [one.to_json() for one in verified],
            }
        }


def _passed(attempt: Record) -> bool | None:
    """None where the sandbox or the checker failed."""
    outcome = Outcome(attempt["outcome"])
    return None if outcome is Outcome.INFRASTRUCTURE_ERROR else outcome is Outcome.PASSED


def _rate(tries: Sequence[Record]) -> dict[str, Any]:
    known = [passed for passed in map(_passed, tries) if passed is not None]
    return {
        "recovered": Rate(sum(known), len(known)).to_json(),
        "missing": len(tries) - len(known),
        "outcomes": dict(sorted(Counter(one["outcome"] for one in tries).items())),
    }


def _scored(records: Sequence[Record], n: int) -> Scored:
    tries = [record["tries"][str(n)] for record in records]
    passed = [_passed(one) for one in tries]
    scores = [None if one is None else int(one) for one in passed]
    return Scored.of(scores, [one["unfinished"] for one in tries], 1)
