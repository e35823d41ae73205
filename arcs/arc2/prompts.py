"""Which prompts heads are ranked on, and which they are judged on in the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arcs.arc2.config import Arc2Config
from arcs.arc2.dispositions import MIN_COHORT
from backends.interface import Prompt

MIN_RANKED = 2 * MIN_COHORT
"""Prompts that two cohorts need at the very least."""


@dataclass(frozen=True)
class Parts:
    """The prompts of the cohorts and of the sweep."""

    ranked: tuple[Prompt, ...]
    swept: tuple[Prompt, ...]
    chosen_on_same: int
    """Prompts of the sweep whose answers decided which heads are damped."""


def parts(prompts: Sequence[Prompt], config: Arc2Config) -> Parts:
    """The first ``sweep_limit`` for the sweep, the cohorts from the others.

    Where the answers do not decide which heads are damped (ablations on the meter's items), all
    may form the cohorts. Without a limit each gets half. Where that leaves too few for cohorts,
    all are used for both, and how many are shared is kept.
    """
    asked = tuple(prompts)
    if not config.ranked_on_answers:
        return Parts(asked, asked[: config.sweep_limit], 0)
    size = config.sweep_limit or len(asked) - len(asked) // 2
    if len(asked) - size >= MIN_RANKED:
        return Parts(asked[size:], asked[:size], 0)
    swept = asked[: config.sweep_limit]
    return Parts(asked, swept, len(swept))
