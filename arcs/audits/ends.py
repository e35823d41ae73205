"""Whether a response ran out of tokens, as far as its source says."""

from __future__ import annotations

from arcs.audits.results import Item

CUT_REASONS = frozenset(
    ("length", "max_tokens", "max_length", "max_new_tokens", "model_length", "token_limit", "limit")
)
"""What engines and log formats call an answer that ran out of tokens, in lower case."""


def ran_out(item: Item, n_predict: int | None) -> bool | None:
    """Whether the response ran out of tokens; None where the source does not determine it.

    Without a finish reason, a response that used every token it was allowed counts as cut.
    """
    if item.finish_reason:
        return item.finish_reason.strip().lower() in CUT_REASONS
    if item.generated_tokens is not None and n_predict is not None:
        return item.generated_tokens >= n_predict
    return None


def stopped_short(item: Item, n_predict: int | None) -> bool | None:
    """Whether tokens ran out while the response still said something new.

    An exact repetition loop would never have ended: it is a failure at any budget.
    """
    return False if item.repetition_loop else ran_out(item, n_predict)
