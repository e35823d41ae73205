"""Training recipes by name (recipes.toml), and what of a profile gives way to the user's choice."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from arcs.arc1.profiles import EVALUATIONS
from models.errors import UserError

FILE = Path(__file__).with_name("recipes.toml")
PLANTED, PLACEBO = "planted-hedge", "placebo"
CONTROLS = (PLANTED, PLACEBO)
"""Recipes that test the instruments and not a model."""
NOTE = "note"


@cache
def recipes() -> Mapping[str, Mapping[str, Any]]:
    """All recipes, with their notes."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def recipe(name: Any) -> dict[str, Any]:
    """A recipe's settings. Raises UserError for a name that is none."""
    known = recipes()
    if not isinstance(name, str) or name not in known:
        raise UserError(f"--recipe {name!r}: unknown; choose from {', '.join(known)}")
    return {key: value for key, value in known[name].items() if key != NOTE}


def note_of(name: str) -> str:
    """Where a recipe comes from."""
    return str(recipes()[name][NOTE])


def profile_that_gives_way(profile: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The profile as far as what the user gave leaves room for it.

    Without the method: an adapter is evaluated as it is; and records of the user's own are not
    followed by pairs that ship with threearc unless that is asked for (``method`` or ``pairs``).
    With a judge that can apply it, MCAS is among the evaluations of every profile; and one behind
    an API is validated on all references, since on few of them none passes its bar.
    """
    settings = dict(profile)
    own_records = "data" in given and "pairs" not in given
    if "method" not in given and (given.get("adapter") is not None or own_records):
        settings.pop("method", None)
    if given.get("judge") not in (None, "lexical"):  # rules cannot apply it
        settings["evaluations"] = EVALUATIONS
    if str(given.get("judge")).startswith("api:"):  # one that is paid for is held to its bar
        settings.pop("judge_references", None)
    return settings
