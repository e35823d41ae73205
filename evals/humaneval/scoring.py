"""One outcome for each answer at each budget."""

from __future__ import annotations

from evals.humaneval.execution import Execution
from evals.humaneval.extraction import Extraction
from evals.humaneval.outcomes import Outcome

_WITHOUT_CODE = {
    "unclosed_think": Outcome.UNCLOSED_THINK,
    "unclosed_fence": Outcome.UNCLOSED_FENCE,
    "no_code": Outcome.NO_CODE,
}


def classify(extraction: Extraction, execution: Execution | None, *, truncated: bool) -> Outcome:
    """The outcome of an answer, the first that applies of these.

    Infrastructure error; passed; the kinds that say where the code went missing (unclosed
    think, unclosed fence, no code); truncated, where the budget ran out and the code fails
    in any way, a syntax error among them; then what the execution says. ``truncated`` is
    kept beside the outcome by the caller, so an answer cut inside a fence counts as both.

    Raises:
        ValueError: there is code but no execution, or the reverse.
    """
    if (extraction.code is None) != (execution is None):
        raise ValueError("an extraction with code needs its execution, one without has none")
    if execution is not None and execution.status == "infrastructure_error":
        return Outcome.INFRASTRUCTURE_ERROR
    if execution is not None and execution.status == "passed":
        return Outcome.PASSED
    if extraction.reason in _WITHOUT_CODE:
        return _WITHOUT_CODE[extraction.reason]
    if truncated or execution is None:
        return Outcome.TRUNCATED
    return Outcome(execution.status)
