"""Figure 3: the features in two dimensions, and what the directions encode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from arcs.figures.parts import AucEstimate, level_text
from arcs.figures.style import AS_PAPER, BLUE, GREY, INK, ORANGE, in_our_style, new_figure

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class FeatureSet:
    """Features of one set of answers."""

    name: str
    features: FloatArray
    """n items x d."""
    labels: BoolArray | None = None
    """n; whether the answer was judged correct. None where nobody judged it."""
    cut: BoolArray | None = None
    """n; whether the text that was read had been cut off. None where nothing stored tells."""

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or not self.features.size:
            raise ValueError(f"{self.name}: features are items x dimensions, not empty")
        if not np.isfinite(self.features).all():
            raise ValueError(f"{self.name}: features hold NaN or infinity")
        for flags in (self.labels, self.cut):
            if flags is not None and flags.shape != (len(self.features),):
                raise ValueError(f"{self.name}: flags of shape {flags.shape}, one per item wanted")


@dataclass(frozen=True)
class PcaComparison:
    """The paper's set, both sets, and how well a probe tells what the labels do not name."""

    training: FeatureSet
    fresh: FeatureSet
    """The paper's panel shows this one, coloured by its labels."""
    set_probe: AucEstimate | None = None
    """Of a probe that tells the two sets apart; None where it was not run."""
    cut_probe: AucEstimate | None = None
    """Of a probe that reads whether the training text had been cut; None where not run."""

    def __post_init__(self) -> None:
        if self.training.features.shape[1] != self.fresh.features.shape[1]:
            raise ValueError("the two sets have features of different width")


@dataclass(frozen=True)
class Projection:
    """Scores on the first two principal components."""

    scores: FloatArray
    """n items x 2."""
    shares: tuple[float, float]
    """Share of the variance that each explains, 0 to 1."""


def project(features: FloatArray) -> Projection:
    """Standardise the columns of ``features`` (n x d) and project on two principal components.

    A component's sign is arbitrary. Its largest loading is positive here (scikit-learn sees to
    it from 1.5 on), so that no other solver mirrors the figure. Raises ValueError for NaN,
    fewer than three items, fewer than two columns, or no variation.
    """
    n, width = features.shape
    if n < 3 or width < 2:
        raise ValueError(f"two components need 3 items and 2 columns, not {n} and {width}")
    if not np.ptp(features, axis=0).any():
        raise ValueError("features do not vary")
    standardised = StandardScaler().fit_transform(features.astype(np.float64))
    fitted = PCA(n_components=2, svd_solver="full").fit(standardised)
    first, second = fitted.explained_variance_ratio_
    return Projection(fitted.transform(standardised), (float(first), float(second)))


@in_our_style
def draw_pca(data: PcaComparison) -> Figure:
    """Draw the fresh set by label at the left, both sets by set and cut-off at the right."""
    figure = new_figure(3.9)
    left, right = figure.subplots(1, 2)
    _draw_paper(left, data)
    _draw_ours(right, data)
    room = 10 + 10 * max(len(axes.get_legend_handles_labels()[0]) for axes in (left, right))
    left.set_title(AS_PAPER, pad=room)
    right.set_title("Both sets, by set and cut-off", pad=room)
    return figure


def _draw_paper(axes: Axes, data: PcaComparison) -> None:
    projection, labels = project(data.fresh.features), data.fresh.labels
    if labels is None:
        everyone = np.ones(len(projection.scores), dtype=bool)
        _cloud(axes, projection, everyone, "not judged", GREY, "o")
    else:
        _cloud(axes, projection, ~labels, "judged wrong", GREY, "o")
        _cloud(axes, projection, labels, "judged correct", ORANGE, "D")
    _finish(axes, projection, data.fresh.name)


def _draw_ours(axes: Axes, data: PcaComparison) -> None:
    sets = (data.training, data.fresh)
    projection = project(np.concatenate([each.features for each in sets]))
    start = 0
    for each, look in zip(sets, ((BLUE, "o", "x"), (ORANGE, "s", "+")), strict=True):
        member = np.zeros(len(projection.scores), dtype=bool)
        member[start : start + len(each.features)] = True
        _draw_set(axes, projection, each, member, look)
        start += len(each.features)
    _finish(axes, projection, "both sets together")
    axes.set_xlabel(axes.get_xlabel() + _probes(data))


def _draw_set(
    axes: Axes,
    projection: Projection,
    each: FeatureSet,
    member: BoolArray,
    look: tuple[str, str, str],
) -> None:
    """Draw one set; ``look`` is its colour, its marker, and the marker of what was cut."""
    colour, whole, broken = look
    if each.cut is None:
        _cloud(axes, projection, member, f"{each.name}, cut-off unknown", colour, whole)
        return
    cut = np.zeros_like(member)
    cut[member] = each.cut
    _cloud(axes, projection, member & ~cut, f"{each.name}, not cut", colour, whole)
    _cloud(axes, projection, cut, f"{each.name}, text cut off", INK, broken)


def _cloud(
    axes: Axes, projection: Projection, which: BoolArray, label: str, colour: str, marker: str
) -> None:
    x, y = projection.scores[which].T
    look: dict[str, Any] = {"s": 14, "linewidths": 0.3, "edgecolors": "white"}
    if marker in "x+":  # has no face, so that an edge would hide it
        look = {"s": 18, "linewidths": 1.0}
    name = f"{label} (n = {int(which.sum())})"
    axes.scatter(x, y, color=colour, marker=marker, alpha=0.65, label=name, **look)


def _finish(axes: Axes, projection: Projection, fitted_on: str) -> None:
    first, second = (f"{100 * share:.1f} % of the variance" for share in projection.shares)
    n = len(projection.scores)
    axes.set_xlabel(f"PC1 (sd units; {first})\nfitted on {fitted_on}, n = {n}")
    axes.set_ylabel(f"PC2 (sd units; {second})")
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.0, ncols=1, handletextpad=0.2
    )


def _probes(data: PcaComparison) -> str:
    """Say what a probe reads from the features, in one line each."""
    found = (("set", data.set_probe), ("cut-off", data.cut_probe))
    known = [(name, probe) for name, probe in found if probe is not None]
    level_text(probe.interval for _, probe in known)
    return "".join(f"\nprobe of {name}: AUC {probe.text}, n = {probe.n}" for name, probe in known)
