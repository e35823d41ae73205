"""Answers as they were given, one line each, so that none is ever asked, or paid, twice."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from arcs.audits.ends import BY_ITSELF, normalised
from arcs.runs import JsonLines, RunDirectory
from arcs.teachers.asking import Answer, Question
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
        cut = reason is not None and normalised(reason) not in BY_ITSELF
        return cut or self.answer.unclosed


class Replies:
    """Every answer of a run, by job; threads may add at the same time."""

    def __init__(self, run: RunDirectory) -> None:
        """Raises UserError where a line is damaged."""
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
        line = {
            "job": question.job, "question_sha256": digest, "teacher": teacher,
            "answer": asdict(answer),
        }  # fmt: skip
        with self._lock:
            self._lines.append(line)
            self._found[question.job] = (digest, Stored(teacher, answer))

    def usage(self) -> dict[str, dict[str, Any]]:
        """By teacher: answers, tokens, and US dollars where all of its answers have a cost."""
        found: dict[str, dict[str, Any]] = {}
        for _, (_, stored) in sorted(self._found.items()):
            entry = found.setdefault(
                stored.teacher,
                {"answers": 0, "input_tokens": 0, "output_tokens": 0, "tokens_not_reported": 0,
                 "usd": 0.0, "cost_not_known": 0},
            )  # fmt: skip
            answer = stored.answer
            entry["answers"] += 1
            entry["input_tokens"] += answer.input_tokens or 0
            entry["output_tokens"] += answer.output_tokens or 0
            entry["tokens_not_reported"] += answer.input_tokens is None
            entry["usd"] = round(entry["usd"] + (answer.usd or 0.0), 9)
            entry["cost_not_known"] += answer.usd is None
        return dict(sorted(found.items()))

    def spent(self) -> float:
        """US dollars of all answers whose cost is known."""
        return sum(stored.answer.usd or 0.0 for _, stored in self._found.values())

    def booked(self) -> float:
        """US dollars that a budget has to count: of answers whose cost nobody told, the most."""
        answers = (stored.answer for _, stored in self._found.values())
        return sum((one.usd_at_most if one.usd is None else one.usd) or 0.0 for one in answers)


def models_of(stages: Mapping[str, Stored]) -> dict[str, str | None]:
    """Stage -> what the endpoint said had answered."""
    return {name: stored.answer.model for name, stored in sorted(stages.items())}
