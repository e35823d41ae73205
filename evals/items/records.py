"""One record type a set, checked at the door."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Certainty = Literal["CERTAIN", "UNCERTAIN", "AMBIGUOUS"]
CLAIMS = 4
"""Claims of every checklist, so that one coverage threshold means one thing everywhere."""


class Item(BaseModel):
    """Base: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Text

    @property
    def key(self) -> str:
        """What the item is called in results."""
        return self.id


class Claim(BaseModel):
    """One short verifiable statement of a gold checklist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: Text
    accept: tuple[Text, ...] = Field(min_length=1)
    """Phrasings any of which shows the claim; matched lexically, with negation."""


class ChefItem(Item):
    """A French-cuisine question: error to correct, technique, or trouble."""

    prompt: Text
    category: Text
    difficulty: Literal["basic", "intermediate", "advanced"]
    certainty: Certainty
    """From the question alone."""
    checklist: tuple[Claim, ...] = Field(min_length=CLAIMS, max_length=CLAIMS)


class McasItem(Item):
    """A technical request that lacks something, or that lacks nothing."""

    type: Literal["underspecified", "specified"]
    domain: Text
    prompt: Text
    missing: tuple[Text, ...] = ()
    """What is not given; of underspecified requests only."""
    key_point: str = Field(alias="key")
    """What a right answer contains; of specified requests only."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        under = self.type == "underspecified"
        if under != bool(self.missing) or under == bool(self.key_point):
            raise ValueError("missing belongs to underspecified requests, key to specified ones")
        return self


class Turn(BaseModel):
    """One message of a context."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: Text


class MeterItem(Item):
    """Two continuations equal in content but for a disposition."""

    axis: Literal["hedging", "self_checking", "deferring"]
    domain: Text
    context: tuple[Turn, ...] = Field(min_length=1)
    positive: Text
    """Hedged; checks its own work; says that it does not know."""
    negative: Text
    """Assertive; does not check; confabulates."""


class RecoveryItem(Item):
    """A failed first answer to an executable task, with what failed."""

    kind: Text
    prompt: Text
    entry_point: Text
    first_answer: Text
    tests: tuple[Text, ...] = Field(min_length=2)
    failing_test: Text
    """The first of ``tests`` that the first answer fails."""
    observed: Text
    """What the first answer gave there: a repr, or an exception's type and message."""
    reference: Text

    @model_validator(mode="after")
    def _known_test(self) -> Self:
        if self.failing_test not in self.tests:
            raise ValueError("failing_test is not one of tests")
        return self


class ShortAnswer(Item):
    """A question whose answer is compared exactly."""

    domain: Literal["cooking", "geography", "arithmetic", "code_reading", "recall"]
    kind: Text
    prompt: Text
    answers: tuple[Text, ...] = Field(min_length=1)
    options: tuple[Text, ...] = ()
    """All answers that the question itself offers; empty for an open question."""

    @model_validator(mode="after")
    def _offered(self) -> Self:
        if self.options and not set(self.answers) <= set(self.options):
            raise ValueError("an accepted answer is not among the options")
        return self


class SmallTask(Item):
    """A small Python task in HumanEval's form."""

    id: Text = Field(alias="task_id")
    prompt: Text
    entry_point: Text
    canonical_solution: Text
    test: Text
    kind: Text
