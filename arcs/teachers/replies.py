"""Answers as they were given, one line each, so that none is ever asked, or paid, twice."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from arcs.audits.ends import BY_ITSELF, normalised
from arcs.runs import JsonLines, RunDirectory
from arcs.teachers.asking import Answer, Question
from arcs.teachers.purse import Booked
from arcs.teachers.roster import Roster
from evals.endpoint import cost
from models.errors import UserError

FILE = "replies.jsonl"


@dataclass(frozen=True)
class Stored:
    """One answer, with who gave it."""

    teacher: str
    answer: Answer

    @property
    def empty(self) -> bool:
        """Nothing was said: an error, for which nothing stands in."""
        return not self.answer.text

    @property
    def unfinished(self) -> bool:
        """Its teacher did not end it (``length``, ``content_filter``, a reason that nobody knows),
        or it ended inside a thought. Where no reason is given, its text tells (filters)."""
        reason = self.answer.finish_reason
        cut = bool(reason and reason.strip()) and normalised(str(reason)) not in BY_ITSELF
        return cut or self.answer.unclosed


class Replies:
    """Every answer of a run, by job; threads may add at the same time."""

    def __init__(self, run: RunDirectory, keep_roster: Callable[[], str]) -> None:
        """``keep_roster``: stores who is asked; called at each answer, gives the sha-256 of it.

        Raises UserError where a line is damaged.
        """
        self._keep_roster = keep_roster
        self._lines: JsonLines = run.json_lines(FILE)
        self._lock = threading.Lock()
        self._found: dict[str, tuple[str, Stored]] = {}
        for line in self._lines.records:
            try:
                stored = Stored(line["teacher"], Answer(**line["answer"]))
                self._found[line["job"]] = (line["question_sha256"], stored)
            except (KeyError, TypeError):
                raise UserError(
                    f"{self._lines.path}: a line is no answer of this version; start a new run"
                ) from None

    def __len__(self) -> int:
        return len(self._found)

    def get(self, job: str) -> Stored | None:
        """What was answered."""
        found = self._found.get(job)
        return None if found is None else found[1]

    def of(self, record: str) -> dict[str, Stored]:
        """Stage -> answer, of one record."""
        prefix = f"{record}/"
        return {
            job.removeprefix(prefix): stored
            for job, (_, stored) in self._found.items()
            if job.startswith(prefix)
        }

    def require_same(self, question: Question, teacher: str) -> None:
        """Raise UserError where the job was answered, but to another question or by another."""
        found = self._found.get(question.job)
        if found is not None and found[0] != question.sha256(teacher):
            raise UserError(
                f"{self._lines.path}: {question.job} was asked otherwise before; start a new run"
            )

    def add(self, question: Question, teacher: str, answer: Answer) -> None:
        """Keep an answer; it is on disk when this returns."""
        digest = question.sha256(teacher)
        with self._lock:
            line = {
                "job": question.job, "question_sha256": digest, "teacher": teacher,
                "roster_sha256": self._keep_roster(), "answer": asdict(answer),
            }  # fmt: skip
            self._lines.append(line)
            self._found[question.job] = (digest, Stored(teacher, answer))

    def usage(self) -> dict[str, dict[str, Any]]:
        """By teacher: answers, tokens, and US dollars where all of its answers have a cost."""
        found: dict[str, dict[str, Any]] = {}
        for _, (_, stored) in sorted(self._found.items()):
            entry = found.setdefault(
                stored.teacher,
                {"answers": 0, "input_tokens": 0, "output_tokens": 0, "tokens_not_reported": 0,
                 "usd": 0.0, "cost_not_known": 0, "ends_not_told": 0},
            )  # fmt: skip
            answer = stored.answer
            entry["answers"] += 1
            entry["input_tokens"] += answer.input_tokens or 0
            entry["output_tokens"] += answer.output_tokens or 0
            entry["tokens_not_reported"] += answer.input_tokens is None
            entry["usd"] = round(entry["usd"] + (answer.usd or 0.0), 9)
            entry["cost_not_known"] += answer.usd is None
            entry["ends_not_told"] += not (answer.finish_reason or "").strip()
        return dict(sorted(found.items()))

    def spent(self) -> float:
        """US dollars of all answers whose cost is known."""
        return sum(stored.answer.usd or 0.0 for _, stored in self._found.values())

    def booked(self, roster: Roster, budget: float | None) -> Booked:
        """US dollars that a budget has to count: of answers whose cost nobody told, the most.

        An answer of a sitting without prices costs what its tokens cost at the roster's; raises
        UserError where there is a budget and they were not told.
        """
        priced, unpriced = [], []
        for job, (_, stored) in sorted(self._found.items()):
            one, teacher = stored.answer, roster.teachers[stored.teacher]
            known = one.usd if one.usd is not None else one.usd_at_most
            if known is not None:
                priced.append(known)
            elif teacher.kind == "endpoint" and one.input_tokens is not None:
                unpriced.append(cost(teacher, one.input_tokens, one.output_tokens or 0) or 0.0)
            elif teacher.kind == "endpoint" and budget is not None:
                raise UserError(
                    f"--budget: {stored.teacher} answered {job} when it had no prices and did not "
                    "report its tokens, so what is spent is not known; go on without a budget"
                )
        return Booked(math.fsum(priced), math.fsum(unpriced))


def models_of(stages: Mapping[str, Stored]) -> dict[str, str | None]:
    """Stage -> what the endpoint said had answered."""
    return {name: stored.answer.model for name, stored in sorted(stages.items())}
