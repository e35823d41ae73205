"""What was asked and answered, for ``transcripts.jsonl``, with the probe's scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from arcs.arc3.labelling import Labelling
from arcs.arc3.questions import SetName
from arcs.arc3.responses import Response
from arcs.arc3.table import Side
from arcs.transcripts import Said, Transcript, held_to

CONDITION = "base"
GATE, USED, KIND, TOPIC, SET = "gate", "used", "kind", "topic", "set"
"""Facets."""


def transcripts(
    found: Sequence[Response],
    labels: Labelling,
    table: Mapping[SetName, Side],
    scores: Mapping[SetName, Sequence[float]] | None,
    threshold: float | None,
    n_predict: int,
) -> Iterator[Transcript]:
    """One item a question; ``scores``: by set, of its used rows, None where there is no probe."""
    of = {} if scores is None else {
        (name, item): score
        for name, values in scores.items()
        for item, score in zip(table[name].item_ids, values, strict=True)
    }  # fmt: skip
    used = {(name, item) for name, side in table.items() for item in side.item_ids}
    for one, label, asserted in zip(found, labels.of, labels.asserted, strict=True):
        question = one.question
        key = (question.set, question.item_id)
        score = of.get(key)
        gate = {}
        if score is not None and threshold is not None:
            gate = {GATE: "asserted" if score >= threshold else "hedged"}
        facets = {SET: question.set, KIND: question.group, TOPIC: question.topic,
                  USED: "yes" if key in used else "no"}  # fmt: skip
        said = Said(
            condition=CONDITION, n_predict=n_predict, text=one.text, right=label.right,
            asserted=asserted, truncated=one.truncated, loop=one.loop, open=label.open,
            detail=label.detail, score=score, program=label.program, output=label.output,
            facets=gate,
        )  # fmt: skip
        yield Transcript(question.item_id, question.text, facets, held_to(question.record),
                         (said,))  # fmt: skip
