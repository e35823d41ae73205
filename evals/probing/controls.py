"""What a probe reports where there is something, and where there is nothing.

* A planted signal must be found: labels are written into real features along a random direction.
* Shuffled labels must not be.
* A control task (Hewitt and Liang 2019) gives every *group* of items one random label. A probe that
  does well there tells the groups apart, and could have got its score on the real labels that
  way. Selectivity is the AUC on the real labels minus that on the control task.
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

    by: str
    """``group``, or ``item`` where there are too few groups."""
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
    draws: int = 5,
    seed: int = 0,
) -> ControlTask:
    """AUC out of fold where every group has a random label, as often True as the real ones.

    The folds are stratified by that label, not grouped: what is asked is what a probe can
    memorise of groups it has seen.
    """
    named = np.asarray(groups)
    names = np.unique(named)
    by_group = len(names) >= LEAST_GROUPS
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(draws):
        made = _drawn(named, names, labels, folds, rng) if by_group else None
        if made is None:
            by_group, made = False, rng.permutation(labels)
        cv = cross_validated(model, x, made, folds=folds, seeds=(len(found),))
        found.append(float(cv.out_of_fold[0]))
    return ControlTask(
        by="group" if by_group else "item",
        groups=len(names),
        auc=float(np.mean(found)),
        lowest=min(found),
        highest=max(found),
        draws=draws,
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
