from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.interface import Completion
from evals.budgets import check_budgets, first_difference, view_at
from models.errors import UserError

STOP = 999


def completion(ids: tuple[int, ...], finish: str = "stop", item: str = "HumanEval/0") -> Completion:
    return Completion(item, (1, 2, 3), ids, finish, 0.1)  # type: ignore[arg-type]


def greedy(text: tuple[int, ...], budget: int) -> Completion:
    """A deterministic decoder: says ``text``, then the stop token, cut off by its budget."""
    ids = (*text, STOP)[:budget]
    return completion(ids, "stop" if len(text) < budget else "length")


texts = st.lists(st.integers(0, 50), max_size=40).map(tuple)


@given(texts, st.integers(1, 60), st.integers(1, 60))
def test_a_view_is_what_decoding_with_the_small_budget_gives(text, one, other) -> None:
    small, large = sorted((one, other))
    view = view_at(greedy(text, large), small)
    decoded = greedy(text, small)
    assert (view.ids, view.finish_reason, view.n) == (decoded.ids, decoded.finish_reason, small)
    assert first_difference(decoded, view) is None


@given(texts, st.integers(1, 60))
def test_stop_at_n_if_and_only_if_the_stop_token_is_among_the_first_n_ids(text, n) -> None:
    view = view_at(greedy(text, 100), n)
    assert (view.finish_reason == "stop") == (STOP in (*text, STOP)[:n])
    assert len(view.ids) <= n


@given(texts, st.lists(st.integers(1, 60), min_size=2, max_size=5, unique=True).map(sorted))
def test_finish_reasons_never_go_back_from_stop_to_length(text, budgets) -> None:
    reasons = [view_at(greedy(text, 60), n).finish_reason for n in budgets]
    assert reasons == sorted(reasons)  # "length" sorts before "stop"


def test_the_stop_token_exactly_at_the_budget_counts_as_stop() -> None:
    assert view_at(completion((5, 6, STOP)), 3).finish_reason == "stop"
    assert view_at(completion((5, 6, STOP)), 2).finish_reason == "length"
    assert view_at(completion((5, 6, STOP)), 2).ids == (5, 6)


def test_an_unfinished_decode_says_nothing_about_a_larger_budget() -> None:
    unfinished = completion((5, 6, 7), "length", item="HumanEval/31")
    assert view_at(unfinished, 3).finish_reason == "length"
    with pytest.raises(UserError, match=r"HumanEval/31 .* 3 tokens .* n_predict 4.*at least 4"):
        view_at(unfinished, 4)


def test_a_finished_decode_is_the_same_at_any_larger_budget() -> None:
    assert view_at(completion((5, STOP)), 4096).ids == (5, STOP)


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1, not 0"):
        view_at(completion((5, STOP)), 0)


@pytest.mark.parametrize(
    ("decoded", "position"),
    [
        (completion((5, 6), "length"), None),
        (completion((5, 7), "length"), 1),
        (completion((4, 6), "length"), 0),
        (completion((5,), "stop"), 1),
        (completion((5, 6), "stop"), 2),
    ],
)
def test_the_first_difference_to_a_real_small_decode_is_found(decoded, position) -> None:
    assert first_difference(decoded, view_at(completion((5, 6, 7, STOP)), 2)) == position


def test_decode_and_view_of_different_items_are_not_compared() -> None:
    view = view_at(completion((5, 6, STOP)), 2)
    with pytest.raises(ValueError, match=r"HumanEval/1 .*HumanEval/0"):
        first_difference(completion((5, 6), "length", item="HumanEval/1"), view)


@given(st.lists(st.integers(-3, 4000), max_size=6))
def test_budgets_are_accepted_exactly_when_positive_distinct_and_rising(budgets) -> None:
    good = bool(budgets) and all(n > 0 for n in budgets) and budgets == sorted(set(budgets))
    if good:
        assert check_budgets(budgets) == tuple(budgets)
    else:
        with pytest.raises(UserError):
            check_budgets(budgets)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [([], "no n_predict"), ([0, 5], "at least 1"), ([5, 5], "once"), ([9, 5], "must rise")],
)
def test_bad_budgets_are_explained(budgets, message) -> None:
    with pytest.raises(UserError, match=message):
        check_budgets(budgets)
