"""Runs code that a model wrote, apart from everything that could be harmed or could help it."""

from __future__ import annotations

from evals.humaneval.sandbox.detect import detect_level, level_named, levels_here
from evals.humaneval.sandbox.level import Hazard, IsolationLevel, Limits

__all__ = ["Hazard", "IsolationLevel", "Limits", "detect_level", "level_named", "levels_here"]
