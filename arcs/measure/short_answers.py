"""The short-answer questions as an instrument of ``threearc measure``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from arcs.gates import Gates
from arcs.held_out import prompts_of
from arcs.measure.claim import claim_of
from arcs.measure.instrument import Record
from arcs.trained_on import Asked
from backends.interface import LanguageModel, Prompt
from evals.exact_match import (
    Answer,
    accuracy,
    bounds,
    by_domain,
    encode_question,
    ids_sha256,
    score,
)
from evals.items.load import built_in, items_sha256
from evals.items.records import ShortAnswer
from evals.items.short_answer import INSTRUCTION, Reading
from evals.statistics import minimum_detectable_effect, paired_counts, tango_interval
from models.chat import ChatEncoder, EncodedPrompt

CHUNK = 32
"""A batch that both engines decode at once or in two; a few seconds on a CPU."""


@dataclass(frozen=True)
class ShortAnswers:
    """See :class:`arcs.measure.instrument.Instrument`."""

    items: tuple[ShortAnswer, ...]
    prompts: tuple[EncodedPrompt, ...]
    encoder: ChatEncoder
    n_predict: int
    chunk: int = CHUNK
    dataset: str = "short_answers"

    @classmethod
    def of(cls, encoder: ChatEncoder, n_predict: int, limit: int | None) -> ShortAnswers:
        """Encode the first ``limit`` questions (all if None); domains are interleaved."""
        items = built_in("short_answers", ShortAnswer)[:limit]
        prompts = tuple(encode_question(encoder, item) for item in items)
        return cls(items, prompts, encoder, n_predict)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """In file order."""
        return tuple(item.id for item in self.items)

    @property
    def asked(self) -> Asked:
        """Each question, without the instruction."""
        return prompts_of(self.items)

    def describe(self) -> dict[str, Any]:
        """Questions, ids, and how they are answered and read."""
        return {
            "instrument": "short-answers",
            "quantity": "share of answers that are right by evals/items/short_answer.py",
            "decoding": "greedy",
            "n_predict": self.n_predict,
            "instruction": INSTRUCTION,
            "items": len(self.items),
            "items_sha256": items_sha256(self.items),
            "ids_sha256": ids_sha256(self.items, self.prompts),
            "chunk": self.chunk,
        }

    def measure(self, model: LanguageModel, places: Sequence[int]) -> list[Record]:
        """Answer the questions at ``places`` and read the answers."""
        asked = [Prompt(self.items[place].id, self.prompts[place].ids) for place in places]
        completions = model.generate(
            asked, max_tokens=self.n_predict, stop_ids=self.encoder.stop_ids
        )
        records: list[Record] = []
        for place, done in zip(places, completions, strict=True):
            text = self.encoder.decode(done.ids)
            cut = done.finish_reason == "length"
            found = score(self.items[place], text, done.ids, truncated=cut)
            kept = {"kind": self.items[place].kind, "ids": list(done.ids)}
            records.append({**asdict(found), **kept, "near_ties": done.near_ties})
        return records

    def summarise(self, records: Sequence[Record], gates: Gates) -> dict[str, Any]:
        """Accuracy over all questions and by domain."""
        answers = [answer_of(record) for record in records]
        ties = [record["near_ties"] for record in records]
        domains = by_domain(answers, gates.level)
        return {
            **accuracy(answers, gates.level).to_json(),
            "near_ties": None if None in ties else sum(ties),
            "domains": {name: one.to_json() for name, one in domains.items()},
        }

    def compare(
        self,
        base: Sequence[Record],
        edited: Sequence[Record],
        gates: Gates,
        *,
        trained_on_test: bool = False,
    ) -> dict[str, Any]:
        """The claim that the edit changes the accuracy, and the difference in each domain."""
        before, after = ([answer_of(record) for record in side] for side in (base, edited))
        found = claim_of(bounds(before), bounds(after), _right(before), _right(after),
                         self.n_predict, gates, trained_on_test=trained_on_test)  # fmt: skip
        statistic = found.statistic
        if statistic is None:
            raise ValueError("no answers to compare")
        counts = statistic.counts
        return {
            "claim": found.to_json(),
            "gained": counts.gained,
            "lost": counts.lost,
            "minimum_detectable_effect": minimum_detectable_effect(
                counts.gained, counts.lost, counts.n,
                alpha=gates.test.alpha, power=gates.test.power,
            ),
            "texts_changed": sum(b.text != a.text for b, a in zip(before, after, strict=True)),
            "domains": _by_domain(before, after, gates),
        }  # fmt: skip


def _by_domain(
    before: Sequence[Answer], after: Sequence[Answer], gates: Gates
) -> dict[str, dict[str, Any]]:
    """Differences for orientation; the claim is the one over all questions."""
    found = {}
    for domain in dict.fromkeys(answer.domain for answer in before):
        sides = [[one for one in side if one.domain == domain] for side in (before, after)]
        counts = paired_counts(*(_right(side) for side in sides))
        interval = tango_interval(counts.gained, counts.lost, counts.n, gates.level)
        found[domain] = {
            "n": counts.n,
            "delta": counts.delta,
            "interval": interval.to_json(),
            "gained": counts.gained,
            "lost": counts.lost,
        }
    return found


def _right(answers: Sequence[Answer]) -> list[bool]:
    return [answer.right for answer in answers]


def answer_of(record: Record) -> Answer:
    """What a record of :meth:`ShortAnswers.measure` says."""
    fields = {key: record[key] for key in Answer.__dataclass_fields__}
    return Answer(**{**fields, "reading": Reading(record["reading"])})
