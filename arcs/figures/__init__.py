"""The paper's figures drawn again, with ours beside them (issue 3).

Every ``draw_...`` is a pure function: a frozen dataclass of numbers in, a matplotlib figure
out. No pyplot, so that nothing is shown, kept open or changed for the caller's own plots.
Importing this package loads matplotlib; commands import it when they need it.
"""

from __future__ import annotations

from arcs.figures.auc_collapse import AucCollapse, AucStep, PaperAuc, draw_auc_collapse
from arcs.figures.axis_sweep import AxisSweep, SweptAxis, draw_axis_sweep
from arcs.figures.discordance import (
    BudgetCounts,
    Discordance,
    PaperChange,
    discordance_of,
    draw_discordance,
)
from arcs.figures.nulls import NullDistribution, draw_nulls
from arcs.figures.parts import AucEstimate
from arcs.figures.pca import FeatureSet, PcaComparison, Projection, draw_pca, project
from arcs.figures.save import save

__all__ = [
    "AucCollapse",
    "AucEstimate",
    "AucStep",
    "AxisSweep",
    "BudgetCounts",
    "Discordance",
    "FeatureSet",
    "NullDistribution",
    "PaperAuc",
    "PaperChange",
    "PcaComparison",
    "Projection",
    "SweptAxis",
    "discordance_of",
    "draw_auc_collapse",
    "draw_axis_sweep",
    "draw_discordance",
    "draw_nulls",
    "draw_pca",
    "project",
    "save",
]
