"""Let a judge label responses, whoever made them; everything that is labelled is kept.

The one way in which experiments get labels from a judge: :func:`judge_responses`. Checklists come
from the items; a rubric gets its question's class from the item, or, where the item has none, from
the judge itself, asked of the question alone before any response is shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from arcs.judging.opening import cached
from arcs.progress import Reporter
from evals.items.records import Claim
from evals.judges.cache import LabelCache, tell_answered
from evals.judges.instruments import CERTAINTY, COVERAGE, DELIVERY, INSTRUMENTS, Instrument
from evals.judges.labels import Judge, JudgeId, Label, Question, Value, labelled
from evals.judges.lexical import SAYS_NOTHING
from evals.self_verification import spoken
from models.errors import UserError

__all__ = ["Item", "Labels", "Response", "judge_responses", "question_id", "spoken"]


class Kept(Protocol):
    """What :class:`arcs.runs.JsonLines` does."""

    records: list[dict[str, Any]]

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record, on disk when this returns."""


@dataclass(frozen=True)
class Item:
    """What a judge may need to know of what was asked."""

    id: str
    question: str
    claims: tuple[Claim, ...] = ()
    """Of coverage."""
    certainty: str | None = None
    """The question's class where somebody gave it, from the question alone."""

    @classmethod
    def of(cls, item: Any) -> Item:
        """From a record of :mod:`evals.items.records` (or any record with id and prompt)."""
        return cls(
            id=item.key,
            question=item.prompt,
            claims=tuple(getattr(item, "checklist", ())),
            certainty=getattr(item, "certainty", None),
        )


@dataclass(frozen=True)
class Response:
    """One text to be labelled."""

    id: str
    """Unique in a call, and the same on every run: labels are joined by it."""
    item_id: str
    text: str
    """As the judge sees it: what :func:`evals.self_verification.spoken` leaves of an answer."""


@dataclass(frozen=True)
class Labels:
    """Labels by question id and instrument."""

    judge: JudgeId
    found: Mapping[tuple[str, str], Label]
    claims: Mapping[str, int]
    """Item -> claims of its checklist."""

    def value(self, response: Response, instrument: str) -> Value | None:
        """The label's value; None unless its status is ``ok``."""
        return self.found[question_id(response, instrument), instrument].value

    def covered(self, response: Response) -> tuple[bool | None, ...]:
        """For each claim whether the response states it; None where there is no label."""
        values = [
            self.found[f"{response.id}#{i}", COVERAGE.name].value
            for i in range(1, self.claims[response.item_id] + 1)
        ]
        return tuple(None if value is None else value == "YES" for value in values)

    def statuses(self, instrument: str) -> dict[str, int]:
        """How many labels have each status."""
        counts = Counter(one.status for (_, name), one in self.found.items() if name == instrument)
        return dict(sorted(counts.items()))

    def cut(self, instrument: str) -> int:
        """Labels whose judge did not see the whole response."""
        return sum(
            one.cut_characters > 0 for (_, name), one in self.found.items() if name == instrument
        )


def question_id(response: Response, instrument: str) -> str:
    """Id of the question that ``instrument`` asks of a response; claims add ``#1``, ``#2``..."""
    return response.item_id if instrument == CERTAINTY.name else response.id


def judge_responses(
    judge: Judge,
    instruments: Sequence[str],
    items: Mapping[str, Item],
    responses: Sequence[Response],
    *,
    cache: LabelCache | None = None,
    kept: Kept | None = None,
    reporter: Reporter | None = None,
    label: str = "judging",
) -> Labels:
    """Label every response by every instrument.

    ``kept``: an append-only file in which each label stands as soon as it is made; one that is
    there for the same judge, prompt and text is not asked again (failures are). Raises UserError
    for an unknown instrument, two responses of one id, a response whose item is not there, or
    coverage of an item without a checklist; CapabilityError as the judge.
    """
    chosen = _instruments(instruments)
    asking = _Asking(cached(judge, cache), kept, reporter or Reporter(quiet=True), label)
    _check(chosen, items, responses)
    used = {one.item_id: items[one.item_id] for one in responses}
    classes = {name: one.certainty for name, one in used.items()}
    rubric = any("certainty" in one.fields for one in chosen)
    unclassed = [one for one in used.values() if one.certainty is None] if rubric else []
    found = asking.ask([_certainty(one) for one in unclassed])
    classes |= {one.id: _text(found[one.id, CERTAINTY.name].value) for one in unclassed}
    questions: list[Question] = []
    without: list[Label] = []
    silent = {one.id for one in responses if not re.search(r"\w", one.text)}
    for instrument in chosen:
        for question in _questions(instrument, used, responses, classes):
            if question.fields.get("certainty") == "":
                said = "the question's class has no label"
                without.append(labelled(question, judge.id, "missing", detail=said))
            elif instrument == DELIVERY and question.id in silent:
                # neither stated nor left open: an answer cut within its thoughts, or an empty one
                without.append(labelled(question, judge.id, "missing", detail=SAYS_NOTHING))
            else:
                questions.append(question)
    found |= asking.ask([one for one in questions if (one.id, one.instrument.name) not in found])
    found |= {(one.question_id, one.instrument): one for one in without}
    return Labels(judge.id, found, {name: len(one.claims) for name, one in used.items()})


@dataclass
class _Asking:
    judge: Judge
    kept: Kept | None
    reporter: Reporter
    label: str

    def ask(self, questions: Sequence[Question]) -> dict[tuple[str, str], Label]:
        """Labels by question id and instrument: those that are kept, then new ones."""
        found = self._known(questions)
        waiting = [one for one in questions if (one.id, one.instrument.name) not in found]
        if not waiting:
            return found
        if found:
            tell_answered(self.judge)
        with self.reporter.bar(self.label, len(questions), "labels", done=len(found)) as bar:

            def keep(made: Label) -> None:
                if self.kept is not None:
                    self.kept.append(made.to_json())
                bar.advance(1)

            for made in self.judge.label(waiting, on_label=keep):
                found[made.question_id, made.instrument] = made
        return found

    def _known(self, questions: Sequence[Question]) -> dict[tuple[str, str], Label]:
        if self.kept is None:
            return {}
        stored = {}
        for record in self.kept.records:
            one = Label.from_json(record)
            if one.status in ("ok", "unparsed") and one.judge == self.judge.id:
                stored[one.question_id, one.prompt_sha256, one.text_sha256] = one
        found = {}
        for question in questions:
            key = (question.id, question.instrument.sha256, question.text_sha256())
            if key in stored:
                found[question.id, question.instrument.name] = stored[key]
        return found


def _instruments(names: Iterable[str]) -> list[Instrument]:
    unknown = next((name for name in names if name not in INSTRUMENTS), None)
    if unknown is not None:
        raise UserError(f"instrument {unknown}: choose one of {', '.join(INSTRUMENTS)}")
    return [INSTRUMENTS[name] for name in dict.fromkeys(names)]


def _check(
    chosen: Sequence[Instrument], items: Mapping[str, Item], responses: Sequence[Response]
) -> None:
    twice = next((name for name, n in Counter(one.id for one in responses).items() if n > 1), None)
    if twice is not None:
        raise UserError(f"response {twice} occurs twice; give every response an id of its own")
    for one in responses:
        if one.item_id not in items:
            raise UserError(f"response {one.id}: its item {one.item_id} is not among the items")
        if COVERAGE in chosen and not items[one.item_id].claims:
            raise UserError(f"{one.item_id} has no checklist, so coverage cannot be judged")


def _questions(
    instrument: Instrument,
    items: Mapping[str, Item],
    responses: Sequence[Response],
    classes: Mapping[str, str | None],
) -> list[Question]:
    if instrument == CERTAINTY:
        return [_certainty(one) for one in items.values()]
    made = []
    for one in responses:
        item = items[one.item_id]
        texts = {"question": item.question, "response": one.text}
        if instrument == COVERAGE:
            made += [
                Question(f"{one.id}#{i}", instrument, {**texts, "claim": claim.claim}, claim.accept)
                for i, claim in enumerate(item.claims, start=1)
            ]
            continue
        if "certainty" in instrument.fields:
            texts["certainty"] = classes[one.item_id] or ""
        made.append(Question(one.id, instrument, texts))
    return made


def _certainty(item: Item) -> Question:
    return Question(item.id, CERTAINTY, {"question": item.question})


def _text(value: Value | None) -> str | None:
    return None if value is None else str(value)
