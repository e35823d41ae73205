"""Several n_predict from one decode.

A greedy decode is a prefix of any longer greedy decode of the same prompt when nothing but
the budget differs (same context size, same decoding mode, same neighbours or independence of
them). So one decode at the largest budget gives every smaller one, by cutting token ids, and
the comparison over budgets varies one thing only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.interface import Completion, FinishReason
from models.errors import UserError


@dataclass(frozen=True)
class BudgetView:
    """What a decode with the budget ``n`` would have returned."""

    item_id: str
    ids: tuple[int, ...]
    """At most ``n`` generated ids, the stop token included when it is among them."""
    finish_reason: FinishReason
    n: int


def view_at(completion: Completion, n: int, *, looping: bool = False) -> BudgetView:
    """Cut a completion at ``n`` generated ids.

    ``looping``: it ends in an exact repetition loop, so a decode that ran out before n ids
    stands for one of n ids, which would have gone on looping.

    It counts as ``stop`` at n if and only if the token that ended it (a stop token, or the
    one that completed a stop string) is among the first n ids; else as ``length``.
    Raises UserError where the decode ran out of its own budget before n ids, since nobody
    knows what would have come next.
    """
    if n < 1:
        raise UserError(f"n_predict must be at least 1, not {n}")
    length = len(completion.ids)
    if completion.finish_reason == "stop" and length <= n:
        return BudgetView(completion.item_id, completion.ids, "stop", n)
    if length < n and looping and completion.finish_reason == "length":
        return BudgetView(completion.item_id, completion.ids, "length", n)
    if length < n:
        raise UserError(
            f"{completion.item_id} was decoded for {length} tokens without finishing, which says "
            f"nothing about n_predict {n}: decode again with a budget of at least {n}"
        )
    return BudgetView(completion.item_id, completion.ids[:n], "length", n)


def check_budgets(budgets: Sequence[int]) -> tuple[int, ...]:
    """Return the budgets of a run, which must be positive, distinct and in rising order.

    The last one is the primary n_predict, at which the run's verdict is given.
    Raises UserError otherwise.
    """
    shown = ", ".join(str(n) for n in budgets)
    if not budgets:
        raise UserError("no n_predict given: name at least one, e.g. 256,512,1024")
    if any(n < 1 for n in budgets):
        raise UserError(f"n_predict must be at least 1: got {shown}")
    if len(set(budgets)) != len(budgets):
        raise UserError(f"each n_predict must be given once: got {shown}")
    if list(budgets) != sorted(budgets):
        raise UserError(f"n_predict must rise: got {shown}; the last one gives the verdict")
    return tuple(budgets)


def first_difference(decoded: Completion, view: BudgetView) -> int | None:
    """Position at which a real decode with a small budget departs from the view cut for it.

    None when they agree in ids and in finish reason, which is what makes cutting legitimate.
    Where the ids agree and the finish reason does not, the position is the number of ids.
    Raises ValueError when the two belong to different items.
    """
    if decoded.item_id != view.item_id:
        raise ValueError(f"a decode of {decoded.item_id} and a view of {view.item_id}")
    for position, (a, b) in enumerate(zip(decoded.ids, view.ids, strict=False)):
        if a != b:
            return position
    if len(decoded.ids) == len(view.ids) and decoded.finish_reason == view.finish_reason:
        return None
    return min(len(decoded.ids), len(view.ids))
