"""What can happen to one HumanEval item at one n_predict, each kind counted apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Exactly one per (item, n_predict)."""

    PASSED = "passed"
    WRONG = "wrong"
    """The code ran and a test failed or an exception was raised."""
    TIMEOUT = "timeout"
    SYNTAX_ERROR = "syntax_error"
    NO_CODE = "no_code"
    UNCLOSED_FENCE = "unclosed_fence"
    UNCLOSED_THINK = "unclosed_think"
    TRUNCATED = "truncated"
    """The budget ran out and what there is of the code fails."""
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    """The sandbox or the checker failed: missing, not a failure of the model."""


@dataclass(frozen=True)
class ItemResult:
    """One item under one condition at one n_predict."""

    item_id: str
    outcome: Outcome
    truncated: bool
    """finish_reason was ``length`` at this n_predict."""
    loop: bool
    """The generated ids end in an exact repetition loop: a failure, not an unfinished answer."""
    answer_sha: str
    """Hash of the answer text at this n_predict: tells whether the answer changed with it."""

    @property
    def passed(self) -> bool | None:
        """Whether the tests passed; None where the infrastructure failed."""
        if self.outcome is Outcome.INFRASTRUCTURE_ERROR:
            return None
        return self.outcome is Outcome.PASSED

    @property
    def unfinished(self) -> bool:
        """Stopped by the budget while still saying something new."""
        return self.truncated and not self.loop
