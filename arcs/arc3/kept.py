"""Parts of the analysis that stand on disk as they are finished, so that a kill loses one of them.

``analysis.jsonl`` holds one line a part: its name, its result, and a hash of all that the analysis
reads and of the code that it is. A line of other labels or features (a judge that was asked again)
or of other code is not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3.probing import Study
from arcs.arc3.table import Side
from arcs.runs import JsonLines

ANALYSIS = "analysis.jsonl"
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("arcs/arc3", "arcs/estimates.py", "evals/probing", "evals/statistics")
"""Code that decides a part. Continuing needs the same commit, which says nothing of a tree that
has changes."""


@dataclass(frozen=True)
class Kept:
    """What is computed once in a run."""

    store: JsonLines | None
    """None: nothing is kept."""
    study: str
    """:func:`study_sha256`"""

    @classmethod
    def of(cls, study: Study, store: JsonLines | None, also: str = "") -> Kept:
        """For one analysis. ``also``: a hash of what else decides its parts."""
        key = "" if store is None else study_sha256(study)
        return cls(store, hashlib.sha256((key + also).encode()).hexdigest() if also else key)

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives (JSON-able), now or before a kill.

        Either way it went through JSON, which keeps every float: the outcome is the same.
        """
        for row in [] if self.store is None else self.store.records:
            if row["part"] == name and row["study"] == self.study:
                return row["found"]
        found = json.loads(json.dumps(make(), allow_nan=False))
        if self.store is not None:
            self.store.append({"part": name, "study": self.study, "found": found})
        return found


def study_sha256(study: Study) -> str:
    """sha-256 (hex) of both sets' rows, the sizes, the seed and the code."""
    sizes = (study.sizes, study.seed, study.level, sources_sha256(ROOT))
    digest = hashlib.sha256(repr(sizes).encode())
    for side in (study.train, study.fresh):
        for one in _bytes_of(side):
            digest.update(hashlib.sha256(one).digest())
    return digest.hexdigest()


@cache
def sources_sha256(root: Path, sources: tuple[str, ...] = SOURCES) -> str:
    """sha-256 (hex) of the names and the text of files and folders, as they stand on disk."""
    digest = hashlib.sha256()
    for name in sources:
        one = root / name
        for path in sorted(one.rglob("*.py")) if one.is_dir() else [one]:
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _bytes_of(side: Side) -> Iterable[bytes]:
    answers = side.answers
    yield json.dumps(
        [side.item_ids, side.groups, side.asserted, side.without_label, side.without_features,
         answers.prompts, answers.responses, answers.topics, answers.ids]
    ).encode()  # fmt: skip
    arrays: list[NDArray[Any]] = [side.y, side.low, side.high, side.finished, side.truncated]
    arrays += [side.x[name] for name in sorted(side.x)]
    arrays += [answers.prompt_tokens, answers.scalars]
    if answers.difficulty is not None:
        arrays.append(answers.difficulty)
    for array in arrays:
        yield f"{array.dtype} {array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()
