"""What a probe reports where there is something, and where there is nothing.

* A planted signal must be found: labels are written into real features along a random direction.
* Shuffled labels must not be.
* A control task (Hewitt and Liang 2019) gives every *type* of input one random label, and every
  input the label of its type. Theirs is the word type of a token; an answer's is the kind of its
  question (``groups``). A probe that does well there tells the kinds apart, and could have got
  its score on the real labels that way. Selectivity is the AUC on the real labels minus that on
  the control task. Labels drawn item by item are no control task: nothing could be learnt of
  them, and any probe would look selective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from evals.statistics.cross_validation import cross_validated

PLANTED_SIZE = 4.0
"""Distance of the class means along the planted direction, every column in units of its own
standard deviation. In 576 columns 160 training rows find it well, not perfectly."""
MOST_TRIES = 50
LEAST_GROUPS = 4
"""Fewer have hardly a random labelling that is not the real one or its opposite."""


@dataclass(frozen=True)
class ControlTask:
    """The control task beside the real one, out of fold."""

    groups: int
    auc: float
    """Mean over the draws."""
    lowest: float
    highest: float
    draws: int


def plant(
    x: NDArray[np.float32], labels: NDArray[np.bool_], *, seed: int, scale_of: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Features [n, d] with the labels [n] added along a random direction.

    ``scale_of`` [m, d]: the rows whose columns' spread sets the size, so that training and fresh
    rows are moved alike.
    """
    drawn = np.random.default_rng(seed).normal(size=x.shape[1])
    direction = drawn / np.linalg.norm(drawn)
    spread = scale_of.astype(np.float64).std(axis=0)
    step = PLANTED_SIZE * (labels.astype(np.float64) - 0.5)
    return np.asarray(x + np.outer(step, direction * spread), dtype=np.float32)


def shuffled(labels: NDArray[np.bool_], *, seed: int) -> NDArray[np.bool_]:
    """The labels in random order."""
    made: NDArray[np.bool_] = np.random.default_rng(seed).permutation(labels)
    return made


def control_task(
    model: Pipeline,
    x: NDArray[np.float32],
    labels: NDArray[np.bool_],
    groups: Sequence[str],
    *,
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
) -> ControlTask | None:
    """AUC out of fold where every group has a random label, as often True as the real ones.

    One draw of labels for each seed of the folds. The folds are stratified by that label, not
    grouped: what is asked is what a probe can memorise of groups it has seen. None where the groups
    are too few to be labelled at random.
    """
    named = np.asarray(groups)
    names = np.unique(named)
    if len(names) < LEAST_GROUPS:
        return None
    rng = np.random.default_rng(seeds[0])
    found: list[float] = []
    for seed in seeds:
        made = _drawn(named, names, labels, folds, rng)
        if made is None:
            return None
        cv = cross_validated(model, x, made, folds=folds, seeds=(seed,))
        found.append(float(cv.out_of_fold[0]))
    return ControlTask(
        groups=len(names),
        auc=float(np.mean(found)),
        lowest=min(found),
        highest=max(found),
        draws=len(found),
    )


def _drawn(
    named: NDArray[np.str_],
    names: NDArray[np.str_],
    labels: NDArray[np.bool_],
    least: int,
    rng: np.random.Generator,
) -> NDArray[np.bool_] | None:
    """A labelling with ``least`` items of each class; None where none is found."""
    for _ in range(MOST_TRIES):
        made = _labels_of_groups(named, names, float(labels.mean()), rng)
        if min(int(made.sum()), int((~made).sum())) >= least:
            return made
    return None


def _labels_of_groups(
    named: NDArray[np.str_], names: NDArray[np.str_], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """True for whole groups in random order, up to about ``share`` of the items."""
    chosen: set[str] = set()
    for name in rng.permutation(names)[:-1]:
        chosen.add(str(name))
        if np.isin(named, list(chosen)).mean() >= share:
            break
    found: NDArray[np.bool_] = np.isin(named, list(chosen))
    return found
