"""The answers: generated once in fixed chunks, or read from another run; ids are what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.arc3.questions import Question
from arcs.progress import Reporter
from arcs.runs import JsonLines, RunDirectory
from backends.interface import FinishReason, LanguageModel
from backends.sequences import TokenSequence
from evals.truncation import repetition_loop
from models.chat import ChatEncoder
from models.errors import UserError

RESPONSES = "responses.jsonl"
CHUNK = 32
"""Questions that are answered together. Batches decide rounding, so chunks never change."""


@dataclass(frozen=True)
class Response:
    """What the model said to one question."""

    question: Question
    ids: tuple[int, ...]
    """All generated ids, the stop token included."""
    finish_reason: FinishReason
    near_ties: int | None
    text: str

    @property
    def truncated(self) -> bool:
        """Stopped by the budget."""
        return self.finish_reason == "length"

    @property
    def loop(self) -> bool:
        """Cut in an exact repetition loop: more tokens would say nothing new."""
        return self.truncated and repetition_loop(self.ids) is not None

    @property
    def sequence(self) -> TokenSequence:
        """As it was generated, never tokenised again."""
        return TokenSequence(self.question.item_id, self.question.prompt.ids, self.ids, "generated")


def chunks_of(asked: Sequence[Question]) -> Iterator[Sequence[Question]]:
    """Questions that go through the model together: of one set, in order."""
    for start in range(0, len(asked), CHUNK):
        yield asked[start : start + CHUNK]


def missing(asked: Sequence[Question], store: JsonLines) -> bool:
    """Whether an answer is not there yet."""
    return not {one.item_id for one in asked} <= {row["item_id"] for row in store.records}


def generate(
    model: LanguageModel,
    encoder: ChatEncoder,
    asked: Sequence[Question],
    budget: int,
    store: JsonLines,
    counts: dict[str, float],
    reporter: Reporter,
) -> None:
    """Answer what has no answer in ``store``, greedily; of a torn chunk only that is kept."""
    done = {row["item_id"] for row in store.records}
    counts["tokens"] = 0
    with reporter.bar("answers", len(asked), "items", done=len(done)) as bar:
        for chunk in chunks_of(asked):
            waiting = {one.item_id: one for one in chunk if one.item_id not in done}
            if not waiting:
                continue
            found = model.generate(
                [one.prompt for one in chunk],
                max_tokens=budget,
                stop_ids=encoder.stop_ids,
                stop_when=encoder.stop_when,
            )
            for one in found:
                question = waiting.get(one.item_id)
                if question is None:
                    continue
                store.append(
                    {
                        "item_id": one.item_id,
                        "set": question.set,
                        "prompt_sha": question.prompt_sha,
                        "ids": list(one.ids),
                        "finish_reason": one.finish_reason,
                        "near_ties": one.near_ties,
                    }
                )
                counts["tokens"] += len(one.ids)
            bar.advance(len(waiting))


def take(run: Path, asked: Sequence[Question], store: JsonLines) -> None:
    """Copy the answers of another run, which is only read.

    Raises UserError where one of these questions has none.
    """
    theirs = _by_id(JsonLines.read(run / RESPONSES))
    for question in asked:  # all of them, before the first is taken
        row = theirs.get(question.item_id)
        if row is None or row["prompt_sha"] != question.prompt_sha:
            why = "has no answer to" if row is None else "was asked otherwise of"
            raise UserError(
                f"--ids-from {run}: it {why} {question.item_id}; give the same --items, --limit "
                "and model as in that run"
            )
        if row["set"] != question.set:
            raise UserError(
                f"--ids-from {run}: {question.item_id} is in its {row['set']} set and here in the "
                f"{question.set} one; that run is from before the sets were drawn as now: answer "
                "again without --ids-from"
            )
    done = {row["item_id"] for row in store.records}
    for question in asked:
        if question.item_id not in done:
            store.append(theirs[question.item_id])


def responses(
    asked: Sequence[Question], store: JsonLines, encoder: ChatEncoder
) -> tuple[Response, ...]:
    """The stored answers, joined by id and checked by prompt. Raises UserError for a stranger."""
    rows = _by_id(store.records)
    made = []
    for question in asked:
        row = rows.get(question.item_id)
        if row is None or row["prompt_sha"] != question.prompt_sha or row["set"] != question.set:
            raise UserError(
                f"{store.path}: {question.item_id} is not the answer to this run's question; "
                "start a new run with --out"
            )
        ids = tuple(row["ids"])
        made.append(
            Response(question, ids, row["finish_reason"], row["near_ties"], encoder.decode(ids))
        )
    return tuple(made)


def summary(found: Sequence[Response]) -> dict[str, Any]:
    """How one set's answers ended."""
    n = len(found)
    cut = sum(one.truncated for one in found)
    ties = [one.near_ties for one in found]
    return {
        "n": n,
        "truncated": cut,
        "truncated_share": cut / n,
        "loops": sum(one.loop for one in found),
        "tokens_mean": sum(len(one.ids) for one in found) / n,
        "near_ties": None if None in ties else sum(tie for tie in ties if tie is not None),
    }


def store_of(run: RunDirectory) -> JsonLines:
    """The run's own answers."""
    return run.json_lines(RESPONSES)


def _by_id(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {row["item_id"]: row for row in rows}
