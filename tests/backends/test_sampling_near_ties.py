"""Near-ties: counted where another engine's rounding could choose another token, and only there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backends.interface import GREEDY, Sampling
from backends.sampling import NEAR_TIE, NoiseKey, candidates_of, choose, choose_full, gumbel

KEY = NoiseKey(0, "item/0", 0)
DRAW = Sampling(temperature=1.0)


@pytest.mark.parametrize(("margin", "near"), [(0.5, True), (0.99, True), (1.01, False), (9, False)])
def test_a_margin_at_the_arg_max_is_counted_below_near_tie(margin: float, near: bool) -> None:
    scaled = np.array([0.0, -5.0, margin * NEAR_TIE], np.float32)
    assert choose_full(scaled, KEY, 0, GREEDY) == (2, near)
    # the same margin once noise is added
    noise = gumbel(KEY, 0, np.arange(3))
    drawn = np.array([0.0, margin * NEAR_TIE, -5.0]) - noise
    assert choose_full(drawn.astype(np.float32), KEY, 0, DRAW) == (1, near)


def test_the_largest_alone_is_left_for_certain() -> None:
    for sampling in (Sampling(temperature=1.0, min_p=1.0), Sampling(temperature=1.0, top_p=1e-6)):
        for step in range(20):
            scaled = np.array([0.0, 2 * NEAR_TIE], np.float32)
            assert choose_full(scaled, KEY, step, sampling) == (1, False)
    scaled = np.array([0.0, 0.5 * NEAR_TIE], np.float32)
    assert choose_full(scaled, KEY, 0, Sampling(temperature=1.0, min_p=1.0)) == (1, True)


NEAR, FAR = 0.5 * NEAR_TIE, 2 * NEAR_TIE
TOP_3, AT_1 = Sampling(temperature=1.0, top_k=3), Sampling(temperature=1.0, min_p=math.exp(-2.0))


@pytest.mark.parametrize(
    ("sampling", "values", "doubtful"),
    [
        (TOP_3, [3.0, 2.0, 1.0, 1.0 - NEAR], {2, 3}),
        (TOP_3, [3.0, 2.0, 1.0, 1.0 - FAR], set()),
        (AT_1, [3.0, 2.0, 1.0 + NEAR], {2}),
        (AT_1, [3.0, 2.0, 1.0 - NEAR], {2}),
        (AT_1, [3.0, 2.0, 1.0 + FAR], set()),
        (AT_1, [3.0, 2.0, 1.0 - FAR], set()),
    ],
)
def test_an_edge_counts_where_the_doubtful_token_would_win(
    sampling: Sampling, values: list[float], doubtful: set[int]
) -> None:
    scaled = np.array(values, np.float32)
    winners = set()
    for step in range(300):
        scores = scaled + gumbel(KEY, step, np.arange(len(values)))
        below, best = np.sort(scores)[-2:]
        if best - below > 2 * NEAR_TIE:
            winner = int(scores.argmax())
            winners.add(winner)
            assert choose_full(scaled, KEY, step, sampling)[1] == (winner in doubtful)
    assert winners == set(range(len(values)))


@pytest.mark.parametrize(
    ("offset", "counted"), [(-0.5, True), (0.5, True), (-3.0, False), (3.0, False)]
)
def test_a_top_p_edge_counts_in_log_odds(offset: float, counted: bool) -> None:
    scaled = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    odds = math.log(0.8 / 0.2) + offset * NEAR_TIE
    sampling = Sampling(temperature=1.0, top_p=1 / (1 + math.exp(-odds)))
    winners = [int((scaled + gumbel(KEY, n, np.arange(3))).argmax()) for n in range(100)]
    assert winners.count(2) > 5
    for step in (n for n in range(100) if winners[n] == 2):
        chosen, near = choose_full(scaled, KEY, step, sampling)
        assert near == counted
        assert (chosen == 2) == (offset > 0)


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        DRAW,
        Sampling(temperature=1.0, top_k=8),
        Sampling(temperature=1.0, top_p=0.8),
        Sampling(temperature=1.0, min_p=0.1),
        Sampling(temperature=1.0, top_k=20, top_p=0.9, min_p=0.05),
    ],
)
def test_what_is_no_near_tie_does_not_change_with_rounding(sampling: Sampling) -> None:
    rng, n = np.random.default_rng(3), 20_000
    scaled = rng.standard_normal((n, 40)).astype(np.float32)
    error = rng.uniform(-0.5, 0.5, scaled.shape) * NEAR_TIE
    one, two = (
        choose(candidates_of(x.astype(np.float32)), [KEY] * n, range(n), sampling, 40)
        for x in (scaled, scaled + error)
    )
    changed = one.ids != two.ids
    assert not (changed & ~one.near_tie).any()
    # some did change, and not everything is called a near-tie
    assert changed.any() and one.near_tie.mean() < 0.01
