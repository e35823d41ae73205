"""Whether a response ran out of tokens, as far as its source says."""

from __future__ import annotations

from collections.abc import Iterable

from arcs.audits.results import Item

CUT_REASONS = frozenset(
    (
        "length", "max_tokens", "max_output_tokens", "max_length", "max_new_tokens",
        "max_completion_tokens", "model_length", "context_length", "token_limit", "length_limit",
        "limit", "incomplete", "truncated", "cut",
    )
)  # fmt: skip
"""What engines and log formats call an answer that ran out of tokens, normalised."""
BY_ITSELF = frozenset(
    (
        "stop", "eos", "eos_token", "end", "end_turn", "end_of_turn", "stop_sequence",
        "stop_token", "stop_str", "completed", "complete", "finished", "done",
    )
)  # fmt: skip
"""What they call one that its model ended."""
OTHER_REASONS = BY_ITSELF | frozenset(
    ("tool_calls", "tool_use", "function_call", "content_filter", "safety", "refusal")
)
"""What they call any end but for want of tokens."""


def normalised(reason: str) -> str:
    """``FinishReason.MAX_TOKENS`` and ``max-tokens`` as ``max_tokens``."""
    return reason.strip().rsplit(".", 1)[-1].lower().replace("-", "_").replace(" ", "_")


def unrecognised(items: Iterable[Item]) -> list[str]:
    """Finish reasons that are neither a known cut nor a known other end, each once, sorted."""
    known = CUT_REASONS | OTHER_REASONS
    reasons = {item.finish_reason for item in items if item.finish_reason}
    return sorted(reason for reason in reasons if normalised(reason) not in known)


def ran_out(item: Item, n_predict: int | None) -> bool | None:
    """Whether the response ran out of tokens; None where the source does not determine it.

    Without a finish reason, a response that used every token it was allowed counts as cut.
    """
    if item.finish_reason:
        reason = normalised(item.finish_reason)
        if reason in CUT_REASONS or reason in OTHER_REASONS:
            return reason in CUT_REASONS
    if item.generated_tokens is not None and n_predict is not None:
        return item.generated_tokens >= n_predict
    return None


def stopped_short(item: Item, n_predict: int | None) -> bool | None:
    """Whether tokens ran out while the response still said something new.

    An exact repetition loop would never have ended: it is a failure at any budget.
    """
    return False if item.repetition_loop else ran_out(item, n_predict)
