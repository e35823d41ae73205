"""Sets that ship for evaluation: none of their prompts may be trained on.

Asked before the first step of every training, whatever the run itself evaluates: an adapter is
evaluated again later, on other sets. ``chef_train`` is not among them: its role is the training
distribution of the probes (PAPER.md section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from arcs.trained_on import NAMED, Asked, Shared, Trained, shared_prompts, wordings
from evals.benchmarks import HUMANEVAL, SMALL, load_benchmark
from evals.items.load import SETS, built_in
from evals.items.records import Item, MeterItem
from models.errors import UserError

_TRAINED = ("chef_train",)
_BENCHMARKS = ("small_tasks",)
"""Asked as a benchmark, under its title."""


def held_out_sets() -> dict[str, Asked]:
    """Name in an adapter's record -> item id -> its wordings."""
    sets: dict[str, Asked] = {}
    for name in (HUMANEVAL, SMALL):
        benchmark = load_benchmark(name)
        sets[benchmark.title] = wordings(benchmark.problems)
    for name, kind in SETS.items():
        if name not in (*_TRAINED, *_BENCHMARKS):
            sets[name] = prompts_of(built_in(name, kind))
    return sets


def prompts_of(items: Sequence[Item]) -> Asked:
    """What each item asks: its prompt, or the last turn of its context."""
    return {
        item.key: (item.context[-1].content if isinstance(item, MeterItem) else item.prompt,)  # type: ignore[attr-defined]
        for item in items
    }


def examine_held_out(
    rows: Sequence[Trained],
    *,
    known: Mapping[str, Collection[str]],
    allowed: bool,
    say: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """Refuse training prompts that any evaluation set asks, or say aloud that it goes on.

    ``known``: items of a set that were found already. Returns what was found and allowed, by set,
    JSON-able. Raises UserError where something was found and is not allowed.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, asked in held_out_sets().items():
        shared = [one for one in shared_prompts(rows, asked) if one.item not in known.get(name, ())]
        if not shared:
            continue
        what = _sentence(name, shared, asked)
        if not allowed:
            raise UserError(
                f"{what}; remove them from the training data, or go on with --allow-overlap"
            )
        say(f"WARNING: {what}; claims of this adapter on that set will be INVALID")
        found[name] = [one.to_json() for one in shared]
    return found


def _sentence(name: str, shared: Sequence[Shared], asked: Mapping[str, Any]) -> str:
    named = "; ".join(map(str, shared[:NAMED]))
    more = f"; and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
    return (
        f"the training data: {len(shared)} of the {len(asked)} prompts of {name}, a set that is "
        f"kept for evaluation, are among the training prompts ({named}{more})"
    )
