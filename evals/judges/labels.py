"""What a judge is asked and what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from evals.judges.instruments import Instrument

Status = Literal["ok", "unparsed", "error", "missing"]
"""``unparsed``: the judge answered something else; ``error``: it failed; ``missing``: it was not
asked, or has no label. Only ``ok`` has a value and counts."""
Value = str | int


@dataclass(frozen=True)
class Question:
    """One thing to be judged by one instrument."""

    id: str
    """Unique among the questions of one instrument in a call, e.g. ``chef-train-001#2``."""
    instrument: Instrument
    fields: Mapping[str, str]
    """Texts for the instrument's template."""
    accept: tuple[str, ...] = ()
    """Phrasings any of which shows a claim; what a lexical judge of coverage needs."""
    response_field: str = "response"

    def prompt(self) -> str:
        """What a judge that reads is asked."""
        return self.instrument.render(self.fields)

    def text_sha256(self) -> str:
        """sha-256 (hex) of all that is judged, phrasings included."""
        text = json.dumps([sorted(self.fields.items()), list(self.accept)])  # ASCII, unambiguous
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def key(self) -> tuple[str, str]:
        """What its label is joined by: id and instrument."""
        return self.id, self.instrument.sha256


@dataclass(frozen=True)
class JudgeId:
    """Who judged: with the instrument's hash, what labels must share to be compared."""

    kind: Literal["api", "gguf", "lexical", "recorded"]
    name: str
    """Model or lexicon, e.g. ``SmolLM2-135M-Instruct q8_0``."""
    version: str
    """Of a file its hash, of an endpoint its base URL."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}@{self.version[:12]}"


@dataclass(frozen=True)
class Label:
    """One answer of one judge."""

    question_id: str
    instrument: str
    judge: JudgeId
    prompt_sha256: str
    """Of the instrument's template and allowed values, not of the text."""
    text_sha256: str
    status: Status
    value: Value | None
    probability: float | None = None
    """The judge's own, of ``value``, where it has one."""
    detail: str = ""
    """What was said in place of a value."""
    cut_characters: int = 0
    """How much of the response the judge did not see."""

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.value is not None):
            raise ValueError(f"{self.question_id}: status {self.status} with value {self.value!r}")

    @property
    def key(self) -> tuple[str, str]:
        """:attr:`Question.key` of what it answers."""
        return self.question_id, self.prompt_sha256

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        found = {key: value for key, value in vars(self).items() if key != "judge"}
        return {**found, "judge": vars(self.judge).copy()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Label:
        """Inverse of :meth:`to_json`."""
        return cls(**{**record, "judge": JudgeId(**record["judge"])})


OnLabel = Callable[[Label], None]


def require_distinct(questions: Sequence[Question]) -> None:
    """Raise ValueError where two questions would share one label."""
    seen: set[tuple[str, str]] = set()
    for question in questions:
        if question.key in seen:
            raise ValueError(f"{question.id} is asked twice of {question.instrument.name}")
        seen.add(question.key)


class Judge(Protocol):
    """Anything that labels."""

    @property
    def id(self) -> JudgeId:
        """Who judges."""

    def label(
        self, questions: Sequence[Question], *, on_label: OnLabel | None = None
    ) -> list[Label]:
        """One label a question, in their order; ``on_label`` sees each as it is made.

        Raises CapabilityError for an instrument that this judge cannot apply.
        """


def labelled(
    question: Question,
    judge: JudgeId,
    status: Status,
    value: Value | None = None,
    **more: Any,
) -> Label:
    """A label of ``question`` with its hashes filled in."""
    return Label(
        question_id=question.id,
        instrument=question.instrument.name,
        judge=judge,
        prompt_sha256=question.instrument.sha256,
        text_sha256=question.text_sha256(),
        status=status,
        value=value,
        **more,
    )
