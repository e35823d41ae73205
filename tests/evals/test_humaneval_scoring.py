"""Which of the outcomes an answer gets."""

from __future__ import annotations

import pytest

from evals.humaneval.execution import Execution
from evals.humaneval.extraction import Extraction, Reason
from evals.humaneval.outcomes import Outcome
from evals.humaneval.scoring import classify


def case(reason: Reason, status: str | None, truncated: bool) -> Outcome:
    code = None if status is None else "code"
    execution = None if status is None else Execution(status, "")  # type: ignore[arg-type]
    return classify(Extraction(code, reason), execution, truncated=truncated)


@pytest.mark.parametrize(
    ("reason", "status", "truncated", "outcome"),
    [
        ("fenced", "infrastructure_error", True, Outcome.INFRASTRUCTURE_ERROR),
        ("unclosed_fence", "infrastructure_error", True, Outcome.INFRASTRUCTURE_ERROR),
        ("unclosed_fence", "passed", True, Outcome.PASSED),
        ("fenced", "passed", False, Outcome.PASSED),
        ("unclosed_think", None, True, Outcome.UNCLOSED_THINK),
        ("unclosed_fence", "syntax_error", True, Outcome.UNCLOSED_FENCE),
        ("unclosed_fence", "wrong", False, Outcome.UNCLOSED_FENCE),
        ("no_code", None, True, Outcome.NO_CODE),
        ("no_code", None, False, Outcome.NO_CODE),
        ("fenced", "wrong", True, Outcome.TRUNCATED),
        ("ast_search", "syntax_error", True, Outcome.TRUNCATED),
        ("raw_completion", "timeout", True, Outcome.TRUNCATED),
        ("fenced", "wrong", False, Outcome.WRONG),
        ("fenced", "syntax_error", False, Outcome.SYNTAX_ERROR),
        ("raw_completion", "timeout", False, Outcome.TIMEOUT),
    ],
)
def test_the_first_kind_that_applies(
    reason: Reason, status: str | None, truncated: bool, outcome: Outcome
) -> None:
    assert case(reason, status, truncated) is outcome


def test_code_without_an_execution_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="execution"):
        classify(Extraction("code", "fenced"), None, truncated=False)
    with pytest.raises(ValueError, match="execution"):
        classify(Extraction(None, "no_code"), Execution("wrong", ""), truncated=False)
