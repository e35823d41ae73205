"""Two ways of doing the same work, timed by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

REPEATS = 3
Work = Callable[[], Any]
Clock = Callable[[], float]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Turn:
    """One repeat, in seconds."""

    ours: float
    plain: float
    ours_cpu: float
    """Of the processors, over all threads: steadier than the clock on a busy machine."""
    plain_cpu: float


def by_turns(
    ours: Work,
    plain: Work,
    repeats: int = REPEATS,
    before: Work | None = None,
    processors: tuple[Clock, Clock] = (time.process_time, time.process_time),
) -> tuple[list[Turn], tuple[Any, Any]]:
    """Seconds of both a repeat, and what both returned last; who begins changes every repeat.

    ``before`` is called before each of the two and not timed. ``processors`` read the CPU time
    (seconds) of the process in which each of the two works.
    """
    turns, results = [], [None, None]
    for repeat in range(repeats):
        clock, processor = [0.0, 0.0], [0.0, 0.0]
        for place in (0, 1) if repeat % 2 == 0 else (1, 0):
            if before is not None:
                before()
            cpu, began = processors[place](), time.perf_counter()
            results[place] = (ours, plain)[place]()
            clock[place] = time.perf_counter() - began
            processor[place] = processors[place]() - cpu
        turns.append(Turn(*clock, *processor))
    return turns, (results[0], results[1])


def rates(turns: Sequence[Turn], tokens: int) -> dict[str, Any]:
    """Tokens per second of both, and ours / plain by the clock and by CPU time.

    Above 1 ours is faster.
    """
    return {
        "tokens": tokens,
        "ours": spread([tokens / turn.ours for turn in turns]),
        "plain": spread([tokens / turn.plain for turn in turns]),
        "ratio": spread([turn.plain / turn.ours for turn in turns]),
        "cpu_ratio": spread([turn.plain_cpu / max(turn.ours_cpu, 1e-9) for turn in turns]),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def same_texts(mine: Sequence[Any], theirs: Sequence[Any], tokens: int) -> int:
    """How many texts are equal; every one must have the same length, or the work was not."""
    if any(len(text) != tokens for text in (*mine, *theirs)):
        raise RuntimeError(f"a text has not {tokens} tokens: the two ways did not do the same work")
    return sum(ours == plain for ours, plain in zip(mine, theirs, strict=True))
