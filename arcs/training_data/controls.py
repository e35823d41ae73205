"""The placebo's records that are paired with planted ones, and the shipped files by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcs.training_data.preferences import built_in_preference_paths
from arcs.training_data.reading import normal_prompt
from arcs.training_data.records import RECORD_TYPES, Record, built_in_paths
from models.errors import UserError


def paired_placebo(planted: Sequence[Record], placebo: Sequence[Record]) -> tuple[Record, ...]:
    """The placebo record of each planted one's prompt and split, in the planted order.

    Two trainings that differ in nothing but the planted behaviour see the same prompts in the
    same order. Raises UserError for a planted record without such a partner.
    """
    known = {(normal_prompt(one.prompt), one.split): one for one in placebo}
    found = []
    for one in planted:
        partner = known.get((normal_prompt(one.prompt), one.split))
        if partner is None:
            raise UserError(
                f"planted record {one.id!r} ({one.split}) has no placebo record of the same "
                "prompt and split; add one"
            )
        found.append(partner)
    return tuple(found)


def shipped_or_own(name: str | Path) -> Path:
    """The shipped file called ``name`` (no folder, no ending); else ``name`` as a path.

    A file of the user's own with that name comes first.
    """
    path = Path(name)
    if path.exists():
        return path
    shipped = (*built_in_paths(*RECORD_TYPES), *built_in_preference_paths())
    return {Path(one.stem): one for one in shipped}.get(path, path)
