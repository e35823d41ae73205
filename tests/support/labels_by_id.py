"""A tiny random model is never right: its answers are called right by their questions' ids.

A module of its own, so that a process that a test kills can be given it too.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from arcs.arc2 import sources
from arcs.arc3 import labelling
from evals.items.short_answer import Reading

score = labelling.score


def by_id(item: Any, text: str, ids: Any, *, truncated: bool) -> Any:
    """Two of five, whatever was said."""
    right = hashlib.sha256(item.id.encode()).digest()[0] % 5 < 2
    said = score(item, text, ids, truncated=truncated)
    return replace(said, reading=Reading.RIGHT if right else Reading.WRONG, open=False)


def install(patch: pytest.MonkeyPatch | None = None) -> None:
    """For as long as the patch, or the process, lives."""
    patch = patch or pytest.MonkeyPatch()
    for module in (labelling, sources):
        patch.setattr(module, "score", by_id)
