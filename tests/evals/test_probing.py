"""Probes, controls, baselines and the gate on numbers whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from evals.probing import gate
from evals.probing.baselines import SCALARS, Answers, baselines, token_scalars
from evals.probing.controls import control_task, plant, shuffled
from evals.probing.probes import PRIMARY, PROBES, scores_on
from evals.statistics.auc import auc
from evals.statistics.cross_validation import cross_validated

N, D = 120, 64


def noise(seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different spread, as hidden states have, and unrelated labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)) * np.exp(np.random.default_rng(99).normal(size=D))
    return x.astype(np.float32), rng.random(n) < 0.4


@pytest.mark.parametrize("name", list(PROBES))
def test_every_probe_finds_what_is_planted_on_rows_it_has_not_seen(name: str) -> None:
    (x, y), (x_new, y_new) = noise(0), noise(1)
    both = [plant(rows, labels, seed=3, scale_of=x) for rows, labels in ((x, y), (x_new, y_new))]
    found = scores_on(PROBES[name](), both[0], y, both[1])
    assert auc(found, y_new) > 0.9
    assert ((found >= 0) & (found <= 1)).all()
    # the planted direction is the same on both sets, and another seed's is another one
    other = plant(x_new, y_new, seed=4, scale_of=x)
    assert abs(auc(scores_on(PROBES[name](), both[0], y, other), y_new) - 0.5) < 0.25


def test_shuffled_labels_keep_their_number_and_lose_the_signal() -> None:
    x, y = noise(0)
    planted = plant(x, y, seed=3, scale_of=x)
    mixed = shuffled(y, seed=5)
    assert mixed.sum() == y.sum() and (mixed != y).any()
    cv = cross_validated(PROBES[PRIMARY](), planted, mixed)
    assert cv.mean < 0.65 < cross_validated(PROBES[PRIMARY](), planted, y).mean


def test_the_control_task_shows_that_groups_can_be_told_apart() -> None:
    """Features that name the group: a real AUC that follows from the group is not selective."""
    x, _ = noise(0)
    groups = [f"g{i % 8}" for i in range(N)]
    named = np.array([[g == f"g{k}" for k in range(8)] for g in groups], dtype=np.float32)
    y = np.array([g in ("g1", "g4", "g6") for g in groups])
    told = control_task(PROBES[PRIMARY](), np.hstack([x, 9 * named]), y, groups)
    blind = control_task(PROBES[PRIMARY](), x, y, groups)
    assert told is not None and blind is not None
    assert told.groups == 8 and told.draws == 5
    assert told.auc > 0.95 and blind.auc < 0.7
    # labels by item would make any probe look selective: no control task rather than that
    assert control_task(PROBES[PRIMARY](), x, y, ["one"] * N) is None


def test_token_scalars_are_the_papers_21_and_the_length() -> None:
    nll, entropy, margin = np.array([1.0, 2, 3]), np.array([0.5, 0.5, 2]), np.array([9.0, 1, 2])
    found = dict(zip(SCALARS, token_scalars(nll, entropy, margin), strict=True))
    assert len(SCALARS) == 22 and found["tokens"] == 3
    assert found["nll.mean"] == 2 and found["nll.median"] == 2 and found["nll.min"] == 1
    assert found["entropy.max"] == 2 and found["entropy.mean"] == 1
    assert found["margin.max"] == 9 and found["margin.q90"] == pytest.approx(7.6)
    assert found["nll.sd"] == pytest.approx(np.sqrt(2 / 3))


def answers(seed: int, difficulty: bool = False) -> tuple[Answers, np.ndarray]:
    """The prompt's word decides; length, topic and probabilities say nothing."""
    rng = np.random.default_rng(seed)
    y = rng.random(N) < 0.5
    prompts = tuple("easy thing" if one else "hard thing" for one in y)
    made = Answers(
        prompts=prompts,
        responses=tuple(f"word{k}" for k in rng.integers(0, 5, N)),
        topics=tuple(f"t{k}" for k in rng.integers(0, 3, N)),
        prompt_tokens=rng.integers(5, 20, N),
        ids=tuple(tuple(row) for row in rng.integers(0, 50, (N, 6)).tolist()),
        scalars=rng.normal(size=(N, len(SCALARS))).astype(np.float32),
        difficulty=y.astype(float) if difficulty else None,
    )
    return made, y


def test_baselines_read_what_they_are_named_after() -> None:
    (train, y), (fresh, y_new) = answers(0, True), answers(1, True)
    found = {one.name: one for one in baselines(train, fresh, width=16)}
    assert found["random projection of ids"].train.shape == (N, 16)
    scores = {
        name: one.fresh if one.make is None else scores_on(one.make(), one.train, y, one.fresh)
        for name, one in found.items()
    }
    sure = {name for name, of in scores.items() if auc(of, y_new) > 0.95}
    assert sure == {"prompt words (TF-IDF)", "another model's result"}
    # surer tokens mean a higher score, before any label is seen
    assert np.array_equal(found["mean log-probability"].fresh, -fresh.scalar("nll.mean"))
    without = {one.name for one in baselines(answers(0)[0], fresh, width=16)}
    assert "another model's result" not in without
    # one topic, equal lengths: nothing to fit, so no baseline rather than a constant one
    flat = Answers(
        train.prompts, train.responses, ("t",) * N, np.full(N, 9), train.ids, train.scalars
    )
    left = {one.name for one in baselines(flat, fresh, width=16)}
    assert not {"topic", "prompt length"} & left


def test_words_that_training_lacks_do_not_weigh_on_new_texts() -> None:
    """As scikit-learn's own vectoriser, which is fitted on the training texts alone."""
    (train, y), (fresh, _) = answers(0), answers(1)
    strange = tuple(f"{text} {'never seen ' * (k % 3)}" for k, text in enumerate(fresh.responses))
    fresh = replace(fresh, responses=strange)
    words = next(
        one for one in baselines(train, fresh, width=4) if one.name == "response words (TF-IDF)"
    )
    assert words.make is not None
    found = scores_on(words.make(), words.train, y, words.fresh)
    plain = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+"), LogisticRegression(max_iter=2000)
    )
    wanted = scores_on(plain, list(train.responses), y, list(fresh.responses))
    assert found == pytest.approx(wanted, abs=1e-6)
    # a fold without any word is no error: its rows have nothing to say
    empty = words.make().fit(words.train[:6] * 0, y[:6])
    assert np.ptp(empty.predict_proba(words.fresh)[:, 1]) == 0


def test_the_threshold_comes_from_training_and_the_oracle_is_apart() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.5
    oof = np.clip(0.5 + 0.2 * (right - 0.5) + rng.normal(0, 0.15, 200), 0, 1)
    chosen = gate.choose_threshold(oof, right, 0.7)
    assert chosen is not None and chosen.p_assert_correct >= 0.7 and chosen.asymmetry < -0.2
    # fresh scores that know nothing: the fixed threshold shows that, the oracle flatters
    fresh, truth = rng.random(200), rng.random(200) < 0.5
    point = gate.operate(chosen.value, fresh, truth, 0.95)
    best = gate.oracle(fresh, truth, min_p_correct=0.7, permutations=500)
    assert point is not None and best is not None
    told = point.to_json()
    assert told["asserted_correct"] == int((fresh[truth] >= chosen.value).sum())
    assert told["asymmetry"] == pytest.approx(told["p_assert_wrong"] - told["p_assert_correct"])
    assert best["asymmetry"] < told["asymmetry"] and best["p_value"] > 0.05
    assert 0 < best["null_passes_paper_gate"] < 0.5
    assert gate.operate(0.5, fresh, np.ones(200, bool), 0.95) is None


def test_a_model_that_is_seldom_right_has_a_gate_too() -> None:
    """All its probabilities lie below the first threshold of the paper's grid."""
    rng = np.random.default_rng(0)
    right = np.arange(400) < 12
    scores = 0.02 + 0.02 * right + rng.uniform(-0.015, 0.015, 400)
    assert gate.oracle(scores, right, min_p_correct=0.7, permutations=9) is None


def test_an_oracle_that_hardly_any_permutation_has_is_still_json():
    scores, right = np.array([0.9, 0.9, *[0.0] * 10]), np.array([True, True, *[False] * 10])
    best = gate.oracle(scores, right, min_p_correct=0.7, permutations=200)
    assert best is not None and best["null_5_percent"] is None
    json.dumps(best, allow_nan=False)
    chosen = gate.choose_threshold(scores, right, 0.7)
    assert chosen is not None and chosen.value in scores
    assert chosen.p_assert_correct >= 0.7 and chosen.asymmetry < -0.5
    # no other gate on these items is better
    tried = [(scores[~right] >= t).mean() - (scores[right] >= t).mean() for t in scores
             if (scores[right] >= t).mean() >= 0.7]  # fmt: skip
    assert chosen.asymmetry == pytest.approx(min(tried))


def test_calibration_and_risk_stand_beside_what_knows_nothing() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    right = rng.random(400) < p
    told, kept = gate.calibration(p, right, 0.5), gate.risk(p, right)
    assert told["brier"] < told["brier_of_base_rate"] == pytest.approx(0.25)
    assert told["brier_interval"]["low"] < told["brier"] < told["brier_interval"]["high"]
    assert sum(row["n"] for row in told["bins"]) == 400
    at = kept["risk_at"]
    assert at["0.25"] < at["0.5"] < at["1"] == pytest.approx(float((~right).mean()))
    assert kept["aurc"] < kept["error_rate"]
