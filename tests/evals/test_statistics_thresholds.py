from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.statistics.thresholds import (
    GRID,
    asymmetry_gate_false_positive_rate,
    asymmetry_null,
    best_asymmetry,
    threshold_curve,
)

# Scores that often lie exactly on a threshold of the grid.
on_grid = st.lists(
    st.tuples(st.sampled_from([*GRID[::9], 0.0, 0.51237, 1.0]), st.booleans()),
    min_size=2,
    max_size=15,
).filter(lambda items: len({label for _, label in items}) == 2)


def curve_by_counting(items, grid, inclusive):
    """(threshold, p_wrong, p_correct) by plain loops."""
    for threshold in grid:
        asserted = [
            (score >= threshold if inclusive else score > threshold, label)
            for score, label in items
        ]
        wrong = [a for a, label in asserted if not label]
        correct = [a for a, label in asserted if label]
        yield threshold, sum(wrong) / len(wrong), sum(correct) / len(correct)


@given(on_grid, st.booleans())
def test_the_curve_counts_asserted_items(items, inclusive) -> None:
    scores, labels = zip(*items, strict=True)
    p_wrong, p_correct = threshold_curve(scores, labels, inclusive=inclusive)
    expected = list(curve_by_counting(items, GRID, inclusive))
    assert p_wrong == pytest.approx([wrong for _, wrong, _ in expected], abs=1e-12)
    assert p_correct == pytest.approx([correct for _, _, correct in expected], abs=1e-12)


def test_an_item_on_the_threshold_is_asserted_only_if_inclusive() -> None:
    grid = np.array([0.5])
    assert threshold_curve([0.5, 0.4], [True, False], grid)[1] == 1.0
    assert threshold_curve([0.5, 0.4], [True, False], grid, inclusive=False)[1] == 0.0


@given(on_grid, st.booleans(), st.sampled_from([0.0, 0.5, 0.7, 1.0]))
def test_the_best_threshold_is_the_first_of_smallest_asymmetry(items, inclusive, floor) -> None:
    scores, labels = zip(*items, strict=True)
    found = best_asymmetry(scores, labels, min_p_correct=floor, inclusive=inclusive)
    rows = [row for row in curve_by_counting(items, GRID, inclusive) if row[2] >= floor]
    if not rows:
        assert found is None
        return
    assert found is not None
    # Python's min keeps the first; rounding to 9 digits makes equal rates equal.
    threshold, p_wrong, p_correct = min(rows, key=lambda row: round(row[1] - row[2], 9))
    assert (found.value, found.p_assert_wrong, found.p_assert_correct) == pytest.approx(
        (threshold, p_wrong, p_correct)
    )
    assert found.asymmetry == pytest.approx(p_wrong - p_correct)


def test_equal_rates_tie_in_spite_of_rounding() -> None:
    # 9/10 - 10/10 and 7/10 - 8/10 differ in the last digit, the second being smaller.
    wrong, correct = [0.1, *[0.3] * 2, *[0.6] * 7], [*[0.3] * 2, *[0.6] * 8]
    labels = [False] * 10 + [True] * 10
    assert 7 / 10 - 8 / 10 < 9 / 10 - 10 / 10
    found = best_asymmetry([*wrong, *correct], labels, grid=np.array([0.2, 0.5]))
    assert found is not None and found.value == 0.2
    steeper = best_asymmetry([0.1, *wrong[1:-1], 0.3, *correct], labels, grid=np.array([0.2, 0.5]))
    assert steeper is not None and steeper.value == 0.5


def test_no_threshold_is_allowed_where_correct_items_score_too_low() -> None:
    scores, labels = [0.01, 0.02, 0.9, 0.9], [True, True, False, True]
    assert best_asymmetry(scores, labels) is None
    assert best_asymmetry(scores, labels, min_p_correct=1 / 3) is not None
    with pytest.raises(ValueError, match="no threshold asserts"):
        asymmetry_null(scores, labels, gate=-0.15)


@pytest.fixture(scope="module")
def smollm_probe(paper_artifacts):
    """``smollm_probe(C)``: scores and labels of the paper's SmolLM probe on fresh prompts."""
    here = np.load(paper_artifacts / "smollm_step16_features.npz")
    fresh = np.load(paper_artifacts / "smollm_fresh_features.npz")["X"]
    judged = json.loads((paper_artifacts / "smollm_fresh_judged_gold.json").read_text())

    def score(c):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
        probe.fit(here["X"], here["coverage"] >= 0.5)
        return probe.predict_proba(fresh)[:, 1], np.array(judged["labels"]) == 1

    return score


@pytest.mark.parametrize("c", [1.0, 0.1])
@pytest.mark.parametrize("inclusive", [True, False])
def test_the_oracle_threshold_of_the_smollm_probe(smollm_probe, paper_artifacts, c, inclusive):
    # PAPER 5.9 `smollm.probe.*` and 9.1, assertion 3: >= and > give the same here.
    golden = json.loads((paper_artifacts / "golden.json").read_text())
    expected = golden[f"smollm.probe.C={c}"]["oracle_balanced"]
    scores, labels = smollm_probe(c)
    found = best_asymmetry(scores, labels, inclusive=inclusive)
    assert found is not None
    assert (found.value, found.asymmetry, found.p_assert_correct, found.p_assert_wrong) == (
        pytest.approx(
            (expected["thr"], expected["asym"], 8 / 9, expected["p_assert_wrong"]), abs=1e-9
        )
    )
    assert best_asymmetry(scores, labels, min_p_correct=0.9) != found


@pytest.mark.parametrize("c", [1.0, 0.1])
def test_chance_passes_the_gate_on_the_smollm_scores_every_third_time(smollm_probe, c) -> None:
    # PAPER 5.3: about 37 percent. Without a C named there; 0.36 and 0.40 are found.
    scores, labels = smollm_probe(c)
    rate = asymmetry_gate_false_positive_rate(9, 184, gate=-0.15, scores=scores)
    assert rate == pytest.approx(0.38, abs=0.04)
    test = asymmetry_null(scores, labels, gate=-0.15)
    # Two simulations of 4,000 and 2,000: standard error of the difference 0.013.
    assert test.share_at_most(-0.15) == pytest.approx(rate, abs=0.04)
    # The asymmetry that the paper reports is what chance gives one time in three.
    assert 0.25 < test.p_value < 0.45
    # With 3 of the 9 positives below the lowest threshold no threshold asserts 70 percent.
    low = int((scores < GRID[0]).sum())
    expected = hypergeom.sf(2, 193, low, 9)
    assert test.undefined / len(test.null) == pytest.approx(expected, abs=0.025)
    assert -0.25 < test.expected < -0.05


@pytest.mark.parametrize(
    ("n_positive", "n_negative", "gate", "rate"),
    [
        (55, 138, -0.15, 0.062),
        (9, 184, -0.15, 0.42),
        (58, 42, -0.15, 0.135),
        (58, 42, -0.20, 0.041),
    ],
)
def test_chance_passes_the_gate_with_uniform_scores(n_positive, n_negative, gate, rate) -> None:
    # PAPER 5.3 and 9.1, assertion 8. Ours has a standard error of 0.004 to 0.008; the size of
    # the simulation behind the figures is not recorded.
    found = asymmetry_gate_false_positive_rate(n_positive, n_negative, gate=gate)
    assert found == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize(("n_positive", "n_negative", "gate"), [(12, 18, -0.3), (3, 4, 0.0)])
def test_the_gate_rate_with_uniform_scores_is_that_of_a_plain_loop(
    n_positive, n_negative, gate
) -> None:
    # The second case fails only where a correct item lies below the lowest threshold.
    rng = np.random.default_rng(2)
    labels = np.arange(n_positive + n_negative) < n_positive
    passes = []
    for _ in range(1500):
        best = best_asymmetry(rng.random(len(labels)), labels)
        passes.append(best is not None and best.asymmetry <= gate)
    found = asymmetry_gate_false_positive_rate(n_positive, n_negative, gate=gate)
    # Standard error of the difference: 0.011 at rates of 0.15 and 0.85.
    assert found == pytest.approx(np.mean(passes), abs=0.035)
    assert 0.05 < found < 0.95


def test_the_null_is_that_of_all_arrangements_of_the_labels() -> None:
    scores = np.array([0.05, 0.2, 0.2, 0.45, 0.6, 0.6, 0.9])
    labels = np.array([False, False, True, False, True, False, True])
    every = [
        best_asymmetry(scores, np.isin(np.arange(7), chosen)).asymmetry
        for chosen in itertools.combinations(range(7), 3)
    ]
    test = asymmetry_null(scores, labels, gate=-0.5, permutations=8000)
    # 8,000 draws: three standard errors of a share are below 0.017.
    for value in set(np.round(every, 9)):
        assert test.share_at_most(value) == pytest.approx(
            np.mean(np.array(every) <= value + 1e-9), abs=0.017
        )
    assert test.p_value == pytest.approx(test.share_at_most(test.observed), abs=2e-4)
    assert test.expected == pytest.approx(np.mean(every), abs=0.01)
    assert not test.grouped


def test_the_permutation_p_keeps_its_level_where_the_fixed_gate_does_not() -> None:
    rng = np.random.default_rng(4)
    labels = np.arange(193) < 9
    # Above the lowest threshold, so that every draw has an admissible threshold.
    tests = [
        asymmetry_null(rng.uniform(0.05, 1, 193), labels, gate=-0.15, permutations=199, seed=i)
        for i in range(300)
    ]
    # 300 draws of a 5 percent event: three standard errors are 0.038.
    assert np.mean([t.p_value <= 0.05 for t in tests]) < 0.05 + 0.038
    assert np.mean([t.p_value <= 0.5 for t in tests]) == pytest.approx(0.5, abs=0.087)
    assert np.mean([t.observed <= -0.15 for t in tests]) > 0.3


def test_a_probe_that_works_has_a_small_p() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(193) < 55
    scores = 1 / (1 + np.exp(-rng.normal(size=193) - 1.5 * labels + 1))
    test = asymmetry_null(scores, labels, gate=-0.15)
    assert test.p_value == 1 / 2001
    assert test.observed < test.quantile(0.01)


def test_the_null_is_fixed_by_its_seed() -> None:
    scores, labels = np.linspace(0, 1, 40), np.arange(40) % 3 == 0
    first, again, other = (asymmetry_null(scores, labels, gate=-0.1, seed=s) for s in (1, 1, 2))
    assert (first.null == again.null).all()
    assert (first.null != other.null).any()


@pytest.mark.parametrize(
    "arguments",
    [
        {"gate": -1.5},
        {"gate": math.nan},
        {"gate": -0.1, "permutations": 0},
        {"gate": -0.1, "scores": [0.1, 0.2]},
    ],
)
def test_impossible_gates_and_sizes_are_refused(arguments) -> None:
    with pytest.raises(ValueError):
        asymmetry_gate_false_positive_rate(3, 4, **arguments)
    with pytest.raises(ValueError, match="impossible"):
        asymmetry_gate_false_positive_rate(0, 4, gate=-0.15)
