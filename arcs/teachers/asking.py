"""What a teacher is asked and what it says."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from models.chat import Message


@dataclass(frozen=True)
class Question:
    """One stage of one record, ready to be asked."""

    job: str
    """``record/stage``."""
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int

    def sha256(self, teacher: str) -> str:
        """sha-256 (hex) of all that decides the answer; ``teacher``: who is asked."""
        turns = [[one.role, one.content] for one in self.messages]
        text = json.dumps([teacher, turns, self.temperature, self.max_tokens])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a teacher said, its thoughts apart."""

    text: str
    """Empty: the teacher said nothing but thoughts, or nothing at all."""
    thoughts: str | None
    finish_reason: str | None
    unclosed: bool
    """It ended inside a thought."""
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    usd: float | None
    """None where it costs nothing, or nobody can tell."""
    usd_at_most: float | None = None
    """Where nobody can tell: what it may have cost, which a budget has to count."""


OnAnswer = Callable[[Question, Answer], None]
OnFailure = Callable[[Question, str, bool], None]
"""The question, why it has no answer, and whether asking again later may give one."""


class Asked(Protocol):
    """Anything that answers questions."""

    def answer(
        self, questions: Sequence[Question], keep: OnAnswer, fail: OnFailure, stop: threading.Event
    ) -> None:
        """Answer all; ``keep`` and ``fail`` see each as it ends, from any thread.

        Raises UserError where going on is of no use; all answers paid for have been kept.
        """

    def describe(self) -> dict[str, Any]:
        """Who answers, exactly (JSON-able)."""
