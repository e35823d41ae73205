"""Intervals, tests and power for paired experiments (DESIGN section 6).

Importing this package loads scipy; commands import it when they need it.
"""

from __future__ import annotations

from evals.statistics.interaction import budget_interaction
from evals.statistics.paired import (
    PairedCounts,
    mcnemar_exact,
    paired_counts,
    paired_difference,
    tango_interval,
)
from evals.statistics.power import (
    decision_power,
    mcnemar_power,
    minimum_detectable_effect,
    n_to_exclude,
    n_to_settle,
)
from evals.statistics.rates import Interval, wilson

__all__ = [
    "Interval",
    "PairedCounts",
    "budget_interaction",
    "decision_power",
    "mcnemar_exact",
    "mcnemar_power",
    "minimum_detectable_effect",
    "n_to_exclude",
    "n_to_settle",
    "paired_counts",
    "paired_difference",
    "tango_interval",
    "wilson",
]
