"""Fit every probe on the training items, cross-validated there and scored on the fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from arcs.arc3.config import Profile
from arcs.arc3.table import Side
from arcs.progress import Bar
from evals.probing.baselines import Baseline, baselines
from evals.probing.controls import control_task, plant, shuffled
from evals.probing.kinds import paired_by_kind
from evals.probing.permuted_labels import Labellings, null_of_the_best
from evals.probing.probes import PRIMARY, PRIMARY_C, PROBES, scores_on
from evals.statistics.auc import (
    AlikeScores,
    auc,
    auc_p_value,
    delong_difference,
    delong_interval,
)
from evals.statistics.cross_validation import CrossValidatedAuc, TooFewForFolds, cross_validated

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
FOLDS = 5
POOLED = ("mean_normed", "paper_mixed")
LOGISTIC = (PRIMARY, "logistic C=1.0")
H_LAST, ALL_LAYERS = "h_last", "all_layers"
PLANT_SEED, SHUFFLE_SEED = 1, 2
CONTROL_DRAWS = 5
Part = Callable[[str, Callable[[], Any]], Any]
"""Names a part of the analysis and makes it, unless it is there (:mod:`arcs.arc3.kept`)."""


@dataclass(frozen=True, eq=False)
class Study:
    """Both sets, and how much work is done on them."""

    train: Side
    fresh: Side
    sizes: Profile
    seed: int
    level: float

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the folds."""
        return tuple(range(self.seed, self.seed + self.sizes.cv_seeds))

    @property
    def slow_seeds(self) -> tuple[int, ...]:
        """Of the folds, for what is slow to fit."""
        return self.seeds[: self.sizes.slow_seeds]


def shown(scores: FloatArray, labels: BoolArray, level: float) -> dict[str, Any]:
    """An AUC with its DeLong interval and Mann-Whitney p."""
    return {
        "auc": auc(scores, labels),
        "interval": delong_interval(scores, labels, level).to_json(),
        "p_value": auc_p_value(scores, labels),
        "n_right": int(labels.sum()),
        "n_wrong": int((~labels).sum()),
    }


def cv_json(found: CrossValidatedAuc, **more: Any) -> dict[str, Any]:
    """Out-of-fold and fold-mean AUC by name, over the seeds of the folds."""
    fold_mean = found.fold_mean[np.isfinite(found.fold_mean)]
    low, high = found.range
    return {
        "out_of_fold_auc": found.mean,
        "sd_over_seeds": found.sd if len(found.out_of_fold) > 1 else None,
        "smallest": low,
        "largest": high,
        "fold_mean_auc": float(fold_mean.mean()) if len(fold_mean) else None,
        "seeds": len(found.out_of_fold),
        **more,
    }


def cross_validate(
    model: Pipeline,
    rows: Any,
    side: Side,
    seeds: Sequence[int],
    *,
    grouped: bool = False,
) -> CrossValidatedAuc | None:
    """None where the classes or the groups are too few for the folds."""
    try:
        return cross_validated(
            model, rows, side.y, folds=FOLDS, seeds=seeds, groups=side.groups if grouped else None
        )
    except TooFewForFolds:
        return None


def one_probe(study: Study, features: str, name: str) -> dict[str, Any]:
    """One probe on one kind of features."""
    train, fresh = study.train, study.fresh
    seeds = study.slow_seeds if name.startswith("MLP") else study.seeds
    make, x = PROBES[name], train.x[features]
    plain = cross_validate(make(), x, train, seeds)
    grouped = cross_validate(make(), x, train, study.slow_seeds, grouped=True)
    scores = scores_on(make(), x, train.y, fresh.x[features])
    return {
        "features": features,
        "probe": name,
        "primary": features == H_LAST and name == PRIMARY,
        "train": None if plain is None else cv_json(plain),
        "train_grouped": None if grouped is None else cv_json(grouped),
        "fresh": shown(scores, fresh.y, study.level),
    }


def all_probes(study: Study, part: Part, bar: Bar) -> list[dict[str, Any]]:
    """Every probe on h_last, the logistic ones on the pooled states."""
    jobs = [(H_LAST, name) for name in PROBES]
    jobs += [(features, name) for features in POOLED if features in study.train.x
             for name in LOGISTIC]  # fmt: skip
    found = []
    for features, name in jobs:
        found.append(part(f"{features}, {name}", partial(one_probe, study, features, name)))
        bar.advance(1, f"{features}, {name}")
    return found


def primary_scores(study: Study) -> tuple[CrossValidatedAuc, FloatArray]:
    """The primary probe: out of fold on the training set, and on the fresh one."""
    x = study.train.x[H_LAST]
    cv = cross_validated(PROBES[PRIMARY](), x, study.train.y, folds=FOLDS, seeds=study.seeds)
    return cv, primary_on_fresh(study)


def primary_on_fresh(study: Study) -> FloatArray:
    """The primary probe, fitted on all of training."""
    x = study.train.x[H_LAST]
    return scores_on(PROBES[PRIMARY](), x, study.train.y, study.fresh.x[H_LAST])


def permuted(study: Study) -> dict[str, Any]:
    """The primary probe's out-of-fold AUC against that of permuted labels."""
    found = null_of_the_best([_labellings(study, study.sizes.permutations).out_of_fold_aucs(
        study.train.x[H_LAST], PRIMARY_C)])  # fmt: skip
    return {
        "out_of_fold_auc": found.observed,
        "p_value": found.p_value,
        "null_mean": found.expected,
        "null_95_percent": found.quantile(0.95),
        "permutations": study.sizes.permutations,
    }


def _labellings(study: Study, permutations: int) -> Labellings:
    return Labellings.of(study.train.y, folds=FOLDS, permutations=permutations, seed=study.seed)


def sweep(study: Study, part: Part, bar: Bar) -> dict[str, Any] | None:
    """Every layer alone; the best one is chosen in training, and its maximum has a null.

    None where the engine gives the final layer only.
    """
    if ALL_LAYERS not in study.train.x:
        return None
    train, fresh = study.train, study.fresh
    x, x_fresh = train.x[ALL_LAYERS], fresh.x[ALL_LAYERS]
    layers, model = range(x.shape[1]), PROBES[PRIMARY]
    drawn = _labellings(study, study.sizes.sweep_permutations)

    def one(layer: int) -> dict[str, Any]:
        cv = cross_validated(model(), x[:, layer], train.y, folds=FOLDS, seeds=study.slow_seeds)
        scores = scores_on(model(), x[:, layer], train.y, x_fresh[:, layer])
        return {"layer": layer, "train": cv_json(cv), "fresh": shown(scores, fresh.y, study.level)}

    def null(layer: int) -> list[float]:
        return [float(each) for each in drawn.out_of_fold_aucs(x[:, layer], PRIMARY_C)]

    rows, nulls = [], []
    for layer in layers:
        rows.append(part(f"layer {layer}", partial(one, layer)))
        bar.advance(1, f"layer {layer}")
        nulls.append(part(f"null of layer {layer}", partial(null, layer)))
        bar.advance(1, f"layer {layer}, permuted")
    found = null_of_the_best(nulls)
    best = max(rows, key=lambda row: row["train"]["out_of_fold_auc"])
    return {
        "probe": PRIMARY,
        "layers": rows,
        "best_in_training": best["layer"],
        "best_is": "the layer with the largest out-of-fold AUC in training; the embedding is 0",
        "null_of_the_maximum": {
            "largest": found.observed,
            "p_value": found.p_value,
            "null_mean": found.expected,
            "permutations": study.sizes.sweep_permutations,
        },
    }


def all_baselines(
    study: Study, part: Part, fresh_scores: FloatArray, oof: FloatArray
) -> list[dict[str, Any]]:
    """What the primary probe must beat, each with the paired difference on the fresh items.

    In training too they are compared on the very folds of the probe.
    """

    def one(baseline: Baseline) -> dict[str, Any]:
        train = _baseline_in_training(study, baseline)
        scores = _baseline_on_fresh(study, baseline)
        return {
            "name": baseline.name,
            "fitted": baseline.make is not None,
            "train": train[1],
            "fresh": shown(scores, study.fresh.y, study.level),
            "probe_minus_baseline": _on_fresh(scores, fresh_scores, study),
            "in_training": _difference(train[0], oof, study.train.y, study),
        }

    return [part(f"baseline {each.name}", partial(one, each)) for each in _baselines(study)]


def differences(study: Study, fresh_scores: FloatArray) -> dict[str, dict[str, Any] | None]:
    """The paired differences of :func:`all_baselines` alone, by name."""
    return {
        one.name: _on_fresh(_baseline_on_fresh(study, one), fresh_scores, study)
        for one in _baselines(study)
    }


def _baselines(study: Study) -> list[Baseline]:
    width = study.train.x[H_LAST].shape[1]
    return baselines(study.train.answers, study.fresh.answers, width=width)


def _baseline_in_training(study: Study, one: Baseline) -> tuple[FloatArray, dict[str, Any]]:
    """Scores out of fold, with their summary."""
    truth = study.train.y
    if one.make is None:
        scores = np.asarray(one.train, dtype=np.float64)
        value = auc(scores, truth)
        single = CrossValidatedAuc(np.array([value]), np.array([np.nan]), scores[None, :])
        return scores, cv_json(single)
    cv = cross_validated(one.make(), one.train, truth, folds=FOLDS, seeds=study.seeds)
    return cv.scores.mean(axis=0), cv_json(cv)


def _baseline_on_fresh(study: Study, one: Baseline) -> FloatArray:
    if one.make is None:
        return np.asarray(one.fresh, dtype=np.float64)
    return scores_on(one.make(), one.train, study.train.y, one.fresh)


def _on_fresh(baseline: FloatArray, probe: FloatArray, study: Study) -> dict[str, Any] | None:
    """The difference on the fresh items, by item and by kind."""
    fresh = study.fresh
    found = _difference(baseline, probe, fresh.y, study)
    if found is None:
        return None
    kinds = paired_by_kind(baseline, probe, fresh.y, fresh.groups, seed=study.seed)
    return {**found, "by_kind": asdict(kinds)}


def _difference(
    baseline: FloatArray, probe: FloatArray, labels: BoolArray, study: Study
) -> dict[str, Any] | None:
    """AUC of the probe minus the baseline's; None where both order the items alike."""
    try:
        found = delong_difference(baseline, probe, labels, study.level)
    except AlikeScores:
        return None
    return {
        "difference": found.difference,
        "interval": found.interval.to_json(),
        "p_value": found.p_value,
    }


def nuisance(study: Study) -> list[dict[str, Any]]:
    """What else h_last tells, out of fold: how the answer ended, its length, its set, its topic."""
    train, fresh = study.train, study.fresh
    x = np.concatenate([train.x[H_LAST], fresh.x[H_LAST]])
    lengths = np.concatenate([side.answers.scalar("tokens") for side in (train, fresh)])
    topics = np.array([*train.answers.topics, *fresh.answers.topics])
    targets: dict[str, BoolArray] = {
        "truncated": np.concatenate([train.truncated, fresh.truncated]),
        "longer than the median": lengths > np.median(lengths),
        "fresh rather than training": np.arange(len(x)) >= len(train.y),
    }
    shared = sorted(set(train.answers.topics) & set(fresh.answers.topics))
    if len(shared) > 1:
        targets |= {f"topic: {topic}": topics == topic for topic in shared}
    return [told(name, x, labels, study) for name, labels in targets.items()]


def told(name: str, x: NDArray[np.float32], labels: BoolArray, study: Study) -> dict[str, Any]:
    """How well states [n, d] tell some other labels, out of fold."""
    n = int(labels.sum())
    found: dict[str, Any] = {"target": name, "n": len(labels), "n_true": n, "auc": None}
    if min(n, len(labels) - n) < FOLDS:
        return {**found, "why": f"fewer than {FOLDS} items of one kind"}
    cv = cross_validated(PROBES[PRIMARY](), x, labels, folds=FOLDS, seeds=study.slow_seeds)
    interval = delong_interval(cv.scores[0], labels, study.level)
    return {**found, "auc": float(cv.out_of_fold[0]), "interval": interval.to_json()}


def selectivity(study: Study, primary: CrossValidatedAuc) -> dict[str, Any]:
    """The control task beside the real one, on the same folds' seeds."""
    train, seeds = study.train, study.seeds[:CONTROL_DRAWS]
    real = float(primary.out_of_fold[: len(seeds)].mean())
    found = control_task(
        PROBES[PRIMARY](), train.x[H_LAST], train.y, train.groups, folds=FOLDS, seeds=seeds
    )
    return {
        "by": "kind of question",
        "groups": len(set(train.groups)),
        "draws": 0 if found is None else len(seeds),
        "real_auc": real,
        "control_auc": None if found is None else found.auc,
        "control_range": None if found is None else [found.lowest, found.highest],
        "selectivity": None if found is None else real - found.auc,
    }


def planted(study: Study) -> Study:
    """The same study with the labels written into h_last."""
    scale = study.train.x[H_LAST]
    both = [
        _with(side, plant(side.x[H_LAST], side.y, seed=study.seed + PLANT_SEED, scale_of=scale))
        for side in (study.train, study.fresh)
    ]
    return _study(study, *both)


def placebo(study: Study) -> Study:
    """The same study with the labels of either set in random order."""
    seed = study.seed + SHUFFLE_SEED
    both = [
        side.relabelled(shuffled(side.y, seed=seed + place))
        for place, side in enumerate((study.train, study.fresh))
    ]
    return _study(study, *both)


def _with(side: Side, x: NDArray[np.float32]) -> Side:
    return replace(side, x={H_LAST: x})


def _study(study: Study, train: Side, fresh: Side) -> Study:
    return Study(train, fresh, study.sizes, study.seed, study.level)


def steps(study: Study) -> int:
    """Units of progress that :func:`all_probes` and :func:`sweep` advance by."""
    probes = len(PROBES) + len(LOGISTIC) * sum(name in study.train.x for name in POOLED)
    if ALL_LAYERS not in study.train.x:
        return probes
    return probes + 2 * int(study.train.x[ALL_LAYERS].shape[1])
