"""No prompt of a set that ships for evaluation may be trained on, whatever a run evaluates."""

from __future__ import annotations

import pytest

from arcs.held_out import examine_held_out, held_out_sets
from arcs.training_data import (
    RECORD_TYPES,
    Record,
    built_in_paths,
    built_in_preference_paths,
    load,
    load_preferences,
)
from evals.items.load import SETS
from models.errors import UserError


def examine(rows, *, allowed=False, known=None):
    said: list[str] = []
    return examine_held_out(rows, known=known or {}, allowed=allowed, say=said.append), said


def record(name: str, prompt: str) -> Record:
    return Record(id=name, prompt=prompt, response="An answer.")


def test_every_evaluation_set_is_held_out() -> None:
    found = held_out_sets()
    assert set(found) == {"HumanEval", "small tasks", *SETS} - {"chef_train", "small_tasks"}
    assert all(len(asked) >= 80 for asked in found.values())
    assert all(
        text.strip() for asked in found.values() for texts in asked.values() for text in texts
    )


def test_what_ships_for_training_is_apart_from_all_of_them() -> None:
    rows = [
        *load(built_in_paths(*RECORD_TYPES)),
        *load_preferences(built_in_preference_paths()),
    ]
    assert examine(rows) == ({}, [])


@pytest.mark.parametrize("name", sorted(held_out_sets()))
@pytest.mark.parametrize("how", ["exact", "near"])
def test_a_leak_is_refused_with_set_and_items(name: str, how: str) -> None:
    asked = held_out_sets()[name]
    item = max(asked, key=lambda one: len(asked[one][0]))
    text = asked[item][0]
    leak = record("leak", text.upper() if how == "exact" else text + " And say why, please.")
    clean = record("clean", "Describe the colours of a coral reef at noon in early summer.")
    with pytest.raises(UserError, match=r"allow-overlap") as caught:
        examine([clean, leak])
    message = str(caught.value)
    assert f"prompts of {name}, a set that is kept for evaluation" in message
    assert item in message and "'leak'" in message and "\n" not in message
    found, said = examine([clean, leak], allowed=True)
    assert item in [one["item"] for one in found[name]] and said[0].startswith("WARNING")
    known = {name: {one["item"] for one in rows} for name, rows in found.items()}
    assert examine([clean, leak], known=known) == ({}, [])
    # what was found of one set says nothing of another
    with pytest.raises(UserError, match="allow-overlap"):
        examine([clean, leak], known={"other": set(asked)})
