"""The first place where two engines part, and a minimal reproduction of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.consistency.bounds import bound_of
from backends.consistency.compare import relative_difference
from backends.consistency.measure import Opener
from backends.interface import Float32
from models.files import canonical_json, write_atomically

SHORTEST = 2


@dataclass(frozen=True)
class Parting:
    """Where two engines part."""

    engines: tuple[str, str]
    stage: str | None
    """First stage beyond the bound, as :meth:`LanguageModel.trace` names it; None: nowhere."""
    before: str | None
    """The stage before it, which still agrees."""
    difference: float
    """At that stage; the largest of all where they part nowhere."""
    bound: float
    ids: tuple[int, ...]
    """The shortest prefix found on which they part."""
    stages: Mapping[str, float]
    """Difference at every stage, on these ids."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "engines": list(self.engines),
            "stage": self.stage,
            "before": self.before,
            "difference": self.difference,
            "bound": self.bound,
            "ids": list(self.ids),
            "stages": dict(self.stages),
        }


def bisect(engines: tuple[str, str], openers: tuple[Opener, Opener], ids: Sequence[int]) -> Parting:
    """Compare both engines stage by stage, on the shortest prefix of ``ids`` that parts them.

    One engine is open at a time: all prefixes are traced on the first, then on the second.
    """
    lengths = _lengths(len(ids))
    traces: list[list[dict[str, Float32]]] = []
    for opener in openers:
        with opener() as model:
            traces.append([model.trace(tuple(ids[:length])) for length in lengths])
    bound = bound_of("logits").limit
    partings = [
        _parting(engines, one, other, tuple(ids[:length]), bound)
        for length, one, other in zip(lengths, *traces, strict=True)
    ]
    return next((found for found in partings if found.stage is not None), partings[-1])


def _lengths(longest: int) -> list[int]:
    """2, 4, 8, ... up to all ids: a bug beyond a window or a chunk needs its length."""
    lengths, length = [], SHORTEST
    while length < longest:
        lengths.append(length)
        length *= 2
    return [*lengths, longest]


def _parting(
    engines: tuple[str, str],
    first: Mapping[str, Float32],
    second: Mapping[str, Float32],
    ids: tuple[int, ...],
    bound: float,
) -> Parting:
    if list(first) != list(second):
        raise ValueError(f"the engines trace other stages: {set(first) ^ set(second)}")
    stages = {name: relative_difference(first[name], second[name]) for name in first}
    names = list(stages)
    beyond = next((i for i, name in enumerate(names) if not stages[name] <= bound), None)
    if beyond is None:
        return Parting(engines, None, None, max(stages.values()), bound, ids, stages)
    before = names[beyond - 1] if beyond else None
    return Parting(engines, names[beyond], before, stages[names[beyond]], bound, ids, stages)


def write_reproduction(
    folder: Path, parting: Parting, *, model: str, fingerprint: str, versions: Mapping[str, Any]
) -> Path:
    """Write what an upstream report needs: ids, stage, differences, versions, and a script."""
    record = {
        **parting.to_json(),
        "model": model,
        "model_fingerprint": fingerprint,
        "versions": dict(versions),
    }
    write_atomically(folder / "parting.json", (canonical_json(record) + "\n").encode())
    script = _SCRIPT.format(
        model=model, ids=list(parting.ids), stage=parting.stage, engines=parting.engines
    )
    path = folder / "reproduce.py"
    write_atomically(path, script.encode())
    return path


_SCRIPT = '''"""Two engines part at {stage} on {model}. Run with threearc installed."""

import numpy as np

from backends import open_backend
from models.store import prepare

IDS = {ids}
directory = prepare({model!r})
traces = []
for engine in {engines!r}:
    with open_backend(engine, directory, dtype="float32") as model:
        traces.append(model.trace(IDS))
for name in traces[0]:
    one, other = (trace[name] for trace in traces)
    print(f"{{name:24}} largest difference {{np.abs(one - other).max():.3e}}, "
          f"range {{np.ptp(one):.3e}}")
'''
