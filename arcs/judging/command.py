"""What ``threearc judge validate`` does with its flags: open the judge, ask, compare, print."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs.gates import load_gates
from arcs.judging.report import report
from arcs.progress import Reporter
from arcs.runs import canonical_json
from evals.judges.cache import CachedJudge, LabelCache
from evals.judges.instruments import INSTRUMENTS
from evals.judges.labels import Judge, Label
from evals.judges.lexical import APPLIES, LexicalJudge
from evals.judges.recorded import RecordedJudge
from evals.judges.references import Reference, references
from evals.judges.validation import Bar, reordered, validate
from models.errors import UserError

CONTEXT = 2048
"""Ids of a local judge's prompt; longer responses are cut, and the label says so."""


def start(
    *,
    judge: str,
    instruments: tuple[str, ...],
    model: str | None,
    quant: str | None,
    url: str | None,
    threads: int | None,
    limit: int | None,
    repeats: bool,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Validate a judge and print what was found on stdout.

    Raises UserError for flags that do not go together, and as the judge.
    """
    reporter, gates = Reporter(), load_gates()
    bar = Bar(gates.judge.kappa_low, gates.judge.planted_accepted, gates.judge.parsed)
    kind, _, source = judge.partition(":")
    _check(kind, source, model=model, quant=quant, url=url, threads=threads)
    if limit is not None and limit < 2:
        raise UserError(f"--limit {limit}: give at least 2 references")
    unknown = next((name for name in instruments if name not in INSTRUMENTS), None)
    if unknown is not None:
        raise UserError(f"--instrument {unknown}: choose one of {', '.join(INSTRUMENTS)}")
    stored = LabelCache(cache) if cache is not None else None
    found = []
    with _opened(kind, source, model, quant, url, threads, reporter) as opened:
        for name in instruments or _applies(opened):
            given = references(name)[:limit]
            found.append(_validated(opened, given, bar, stored, reporter, repeats=repeats))
    document = {
        "schema_version": "threearc-judge-1",
        "bar": vars(bar),
        "gates_sha256": gates.sha256,
        "instruments": {one["instrument"]: one for one in found},
    }
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        Console(highlight=False).print(report(document))


def _check(kind: str, source: str, **given: Any) -> None:
    wants = {"lexical": (), "recorded": (), "gguf": ("model", "quant", "threads"),
             "api": ("model", "url")}  # fmt: skip
    if kind not in wants:
        raise UserError(f"--judge {kind}: give lexical, gguf, api or recorded:FILE")
    if bool(source) != (kind == "recorded"):
        raise UserError("--judge: give the file of recorded labels as recorded:FILE, and only then")
    wrong = next((name for name, value in given.items() if value and name not in wants[kind]), None)
    if wrong is not None:
        raise UserError(f"--{wrong} means nothing to a {kind} judge; leave it out")
    if kind == "api" and not (given["model"] and given["url"]):
        raise UserError("--judge api needs --url and --model")


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


@contextmanager
def _opened(
    kind: str,
    source: str,
    model: str | None,
    quant: str | None,
    url: str | None,
    threads: int | None,
    reporter: Reporter,
) -> Iterator[Judge]:
    if kind == "lexical":
        yield LexicalJudge()
    elif kind == "recorded":
        yield RecordedJudge(Path(source))
    elif kind == "api":
        from evals.judges.api import ApiJudge, ApiSettings

        yield ApiJudge(ApiSettings(base_url=str(url), model=str(model)))
    else:
        with _local(model or "SmolLM2-135M-Instruct", quant or "q8_0", threads, reporter) as local:
            yield local


@contextmanager
def _local(model: str, quant: str, threads: int | None, reporter: Reporter) -> Iterator[Judge]:
    from backends.llamacpp import require_installed
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.quantise import evaluation_gguf
    from evals.judges.gguf import GgufJudge
    from models.chat import ChatEncoder
    from models.fingerprint import file_sha256
    from models.geometry import read_geometry
    from models.store import cache_root, prepare

    require_installed()
    directory = prepare(model, say=reporter.say)
    encoder = ChatEncoder(directory)
    context = min(CONTEXT, read_geometry(directory.path).context_length)
    path = evaluation_gguf(directory, quant, cache_root() / "gguf", say=reporter.say)
    with open_gguf(path, context=context, width=1, threads=threads) as opened:
        name = f"{directory.name} {quant}"
        yield GgufJudge(opened, encoder, name=name, sha256=file_sha256(path), context=context)


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
    begun = time.perf_counter()
    first = _asked(judge, given, cache, 0, name, reporter)
    seconds = time.perf_counter() - begun
    again = turned = None
    if repeats:
        again = _asked(judge, given, cache, 1, f"{name}, again", reporter)
        if judge.id.kind in ("api", "gguf"):  # the others read no list of answers
            turned = _asked(judge, reordered(given), cache, 0, f"{name}, reordered", reporter)
    found = validate(judge, given, first, again=again, reordered=turned)
    return {**found.to_json(bar), "labels_per_second": len(first) / seconds}


def _asked(
    judge: Judge,
    given: Sequence[Reference],
    cache: LabelCache | None,
    attempt: int,
    label: str,
    reporter: Reporter,
) -> list[Label]:
    # the others cost nothing, and a recorded label depends on the question's id as well
    costs = judge.id.kind in ("api", "gguf")
    asked = CachedJudge(judge, cache, attempt=attempt) if cache is not None and costs else judge
    with reporter.bar(label, len(given), "labels") as bar:
        return asked.label([one.question for one in given], on_label=lambda _: bar.advance(1))
