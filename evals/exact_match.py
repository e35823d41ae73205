"""Short answers: generate, read by one rule, count (evals/items/short_answer.py).

An answer that was cut by the budget is *open* where more text could still have changed how it
reads. Open answers count as what they read as, and are bounded apart: all wrong, all right.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evals.items.records import ShortAnswer
from evals.items.short_answer import INSTRUCTION, Reading, is_settled, read
from evals.statistics.rates import Interval, wilson
from evals.truncation import ArmBounds, repetition_loop
from models.chat import EncodedPrompt, Message


class EncodesPrompts(Protocol):
    """What :class:`models.chat.ChatEncoder` does here."""

    @property
    def raw(self) -> object | None:
        """The template of a model that has none for chats; None where it is asked as a chat."""

    def encode_prompt(self, messages: Sequence[Message]) -> EncodedPrompt:
        """The generation prompt as ids."""


@dataclass(frozen=True)
class Answer:
    """What a model said to one question, and how it reads."""

    item_id: str
    domain: str
    text: str
    reading: Reading
    truncated: bool
    """Stopped by the budget."""
    loop: bool
    """Cut in an exact repetition loop: more tokens would say nothing new."""
    open: bool
    """Cut, not in a loop, and before what decides is settled."""

    @property
    def right(self) -> bool:
        """An answer that cannot be read is not right."""
        return self.reading is Reading.RIGHT


@dataclass(frozen=True)
class Accuracy:
    """Counts of one model's answers."""

    n: int
    right: int
    interval: Interval
    """Wilson's, of right / n."""
    unparsed: int
    truncated: int
    loops: int
    open: int

    @property
    def rate(self) -> float:
        """Share of right answers among all, unparsed ones included."""
        return self.right / self.n

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "n": self.n,
            "right": self.right,
            "accuracy": self.rate,
            "interval": self.interval.to_json(),
            "wrong": self.n - self.right - self.unparsed,
            "unparsed": self.unparsed,
            "finished": self.n - self.truncated,
            "finished_share": (self.n - self.truncated) / self.n,
            "truncated": self.truncated,
            "truncated_share": self.truncated / self.n,
            "loops": self.loops,
            "open": self.open,
        }


def encode_question(encoder: EncodesPrompts, item: ShortAnswer) -> EncodedPrompt:
    """The question with the fixed instruction behind it, as the user's turn.

    A raw template asks the question alone: a base model follows no instruction.
    """
    text = item.prompt if encoder.raw is not None else item.prompt + INSTRUCTION
    return encoder.encode_prompt([Message("user", text)])


def score(item: ShortAnswer, text: str, ids: Sequence[int], *, truncated: bool) -> Answer:
    """Read one answer; ``ids`` are the generated ones, ``text`` what they decode to."""
    loop = truncated and repetition_loop(ids) is not None
    settled = is_settled(text, prompt=item.prompt, accepted=item.answers, options=item.options)
    return Answer(
        item_id=item.id,
        domain=item.domain,
        text=text,
        reading=read(text, prompt=item.prompt, accepted=item.answers, options=item.options),
        truncated=truncated,
        loop=loop,
        open=truncated and not loop and not settled,
    )


def accuracy(answers: Sequence[Answer], level: float = 0.95) -> Accuracy:
    """Count. Raises ValueError where there are no answers."""
    right = sum(answer.right for answer in answers)
    return Accuracy(
        n=len(answers),
        right=right,
        interval=wilson(right, len(answers), level),
        unparsed=sum(answer.reading is Reading.UNPARSED for answer in answers),
        truncated=sum(answer.truncated for answer in answers),
        loops=sum(answer.loop for answer in answers),
        open=sum(answer.open for answer in answers),
    )


def by_domain(answers: Sequence[Answer], level: float = 0.95) -> dict[str, Accuracy]:
    """Count each domain apart, in order of appearance."""
    domains = Counter(answer.domain for answer in answers)
    return {
        domain: accuracy([one for one in answers if one.domain == domain], level)
        for domain in domains
    }


def bounds(answers: Sequence[Answer]) -> ArmBounds:
    """Results in item order where all open answers are wrong, and where all are right."""
    low = tuple(False if answer.open else answer.right for answer in answers)
    high = tuple(True if answer.open else answer.right for answer in answers)
    return ArmBounds(low, high, unfinished=sum(one.open for one in answers), resolved=0)


def ids_sha256(items: Sequence[ShortAnswer], prompts: Sequence[EncodedPrompt]) -> str:
    """sha-256 (hex) over items and prompt ids, in order."""
    digest = hashlib.sha256()
    for item, prompt in zip(items, prompts, strict=True):
        digest.update(repr((item.id, prompt.ids)).encode())
    return digest.hexdigest()
