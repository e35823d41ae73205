"""What ``threearc judge validate`` does with its flags: open the judge, ask, compare, print."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.gates import load_gates
from arcs.judging.opening import JudgeOptions, ask, cache_for, describe_judge, open_judge
from arcs.judging.published import agreement, answers_in
from arcs.judging.report import report
from arcs.judging.validity import bar_of
from arcs.labels import parse_judge
from arcs.progress import Reporter
from arcs.runs import canonical_json
from evals.judges.cache import LabelCache
from evals.judges.instruments import INSTRUMENTS
from evals.judges.labels import Judge, Question
from evals.judges.lexical import APPLIES, LexicalJudge
from evals.judges.recorded import RecordedJudge
from evals.judges.references import Reference, references
from evals.judges.validation import Bar, reordered, validate
from models.errors import UserError


def start(
    *,
    judge: str,
    instruments: tuple[str, ...],
    options: JudgeOptions,
    limit: int | None,
    repeats: bool,
    published: Path | None,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Validate a judge and print what was found on stdout.

    Raises UserError for flags that do not go together, and as the judge.
    """
    reporter, gates, source = Reporter(), load_gates(), parse_judge(judge)
    bar = bar_of(gates)
    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit}: give at least 2 references")
    unknown = next((name for name in instruments if name not in INSTRUMENTS), None)
    if unknown is not None:
        raise UserError(f"--instrument {unknown}: choose one of {', '.join(INSTRUMENTS)}")
    stored = cache_for(source, cache)
    answers = None if published is None else answers_in(published)
    found, beside = [], []
    with open_judge(source, reporter, options) as opened:
        names = instruments or _applies(opened)
        for name in names:
            given = references(name)[:limit]
            found.append(_validated(opened, given, bar, stored, reporter, repeats=repeats))
        if answers is not None:
            beside = agreement(opened, names, answers, cache=stored, reporter=reporter, limit=limit)
        described = describe_judge(opened)
    document = {
        "schema_version": "threearc-judge-2",
        "judge": described,
        "versions": provenance.versions(),
        "processor": provenance.hardware()["processor"],
        "bar": vars(bar),
        "gates_sha256": gates.sha256,
        "instruments": {one["instrument"]: one for one in found},
        "published": None if published is None else beside,
    }
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        Console(highlight=False).print(report(document))


def _applies(judge: Judge) -> tuple[str, ...]:
    """Instruments that a judge has labels for."""
    if isinstance(judge, LexicalJudge):
        return APPLIES
    if isinstance(judge, RecordedJudge):
        known = tuple(name for name in judge.instruments if name in INSTRUMENTS)
        if not known:
            raise UserError(f"--judge recorded: labels of no instrument: {', '.join(INSTRUMENTS)}")
        return known
    return tuple(INSTRUMENTS)


def stored_labels(judge: Judge, asked: Sequence[Question], cache: LabelCache | None) -> int:
    """How many are in the cache already: reading them says nothing about the judge's speed."""
    if cache is None:
        return 0
    return sum(cache.get(judge.id, question) is not None for question in asked)


def _validated(
    judge: Judge,
    given: Sequence[Reference],
    bar: Bar,
    cache: LabelCache | None,
    reporter: Reporter,
    *,
    repeats: bool,
) -> dict[str, Any]:
    name = given[0].question.instrument.name
    asked = [one.question for one in given]
    known = stored_labels(judge, asked, cache)
    begun = time.perf_counter()
    first = ask(judge, asked, name, reporter, cache=cache)
    seconds = time.perf_counter() - begun
    again = turned = None
    if repeats:
        again = ask(judge, asked, f"{name}, again", reporter, cache=cache, attempt=1)
        if judge.id.kind in ("api", "gguf"):  # the others read no list of answers
            reverse = [one.question for one in reordered(given)]
            turned = ask(judge, reverse, f"{name}, reordered", reporter, cache=cache)
    found = validate(judge, given, first, again=again, reordered=turned)
    return {**found.to_json(bar), "labels_per_second": None if known else len(first) / seconds}
