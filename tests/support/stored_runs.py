"""Finished runs on disk without an engine: texts and what running them gave are given,
every number is made from them by the code that makes it in a real run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from arcs import provenance
from arcs.arc1 import evaluation, metrics
from arcs.arc1.config import resolve
from arcs.arc1.metrics import Decoding
from arcs.evaluate.config import BASE
from arcs.gates import load_gates
from arcs.measure.config import conditions_of, parse
from arcs.measure.short_answers import ShortAnswers
from arcs.runs import METRICS, RunDirectory
from arcs.verdicts import compare
from evals.benchmarks import load_benchmark
from evals.exact_match import score
from evals.humaneval.execution import Execution
from evals.humaneval.extraction import extract
from evals.humaneval.problems import Problem
from evals.items.load import built_in, items_sha256
from evals.items.records import ShortAnswer

BUDGETS = (64, 128)
HOSTILE = (
    "</script><script>document.title='owned'</script><!--<script>",
    "<img src=x onerror=\"document.title='owned'\"> &lt;b&gt; ${1} {{7*7}} {% raw %}",
    "x\u2028y\u202egnp.exe\u2066 \x00\x1b[31m \U0001f600\ufffd",
    "]]></style><svg/onload=document.title='owned'>",
)


@dataclass(frozen=True)
class Given:
    """What one arm says about one problem: ends after ``ids`` of the generated ids."""

    text: str
    passes: bool
    ids: int = 40


def answer(problem: Problem, *, passes: bool, before: str = "", ids: int = 40) -> Given:
    """A fenced program, right or wrong; ``before`` stands ahead of it."""
    body = problem.canonical_solution if passes else "    return None\n"
    return Given(f"{before}\n```python\n{problem.prompt}{body}```\n", passes, ids)


def problems(count: int) -> tuple[Problem, ...]:
    return load_benchmark("humaneval").problems[:count]


def arc1_run(path: Path, base: Sequence[Given], trained: Sequence[Given], **manifest: Any) -> Path:
    """Write the run's files; problem i is answered by ``base[i]`` and ``trained[i]``."""
    chosen = problems(len(base))
    config = resolve({"limit": len(base), "n_predict": BUDGETS, **manifest.pop("config", {})})
    given = [
        _cut(arm, problem, one, n)
        for arm, side in (("base", base), ("trained", trained))
        for problem, one in zip(chosen, side, strict=True)
        for n in BUDGETS
    ]
    executions = _executions(given, {"base": base, "trained": trained}, chosen)
    table = evaluation.results(given, executions)
    comparison = compare(
        table["base"], table["trained"], load_gates(), base_settings="s", edited_settings="s"
    )
    document = {
        **provenance.first_manifest("arc1", config.model_dump(mode="json"), ["threearc", "arc1"]),
        "model": {"name": "prepared answers", "fingerprint": "0" * 64},
        "evaluation": {**load_benchmark("humaneval").describe("chat"), "quantisation": "q8_0"},
        **manifest,
    }
    with RunDirectory.create(path, document) as run, run.timed("decode"):
        evaluation.write_items(
            path / "items.jsonl", evaluation.item_records(given, executions, table)
        )
        decoding = {arm: Decoding(tokens=100, near_ties=2) for arm in ("base", "trained")}
        made = metrics.build(config, document, metrics.Found(comparison, decoding), None)
        run.write_json(METRICS, made.model_dump(mode="json"))
    return path


def _cut(arm: str, problem: Problem, given: Given, n: int) -> evaluation.Answer:
    """The text within n ids, as many characters for each."""
    truncated = given.ids > n
    text = given.text[: len(given.text) * n // given.ids] if truncated else given.text
    item = SimpleNamespace(problem=problem, prompt=SimpleNamespace(sample=0), key=problem.task_id)
    extraction = extract(text, problem, style="chat", think_open=False)
    return evaluation.Answer(arm, item, n, text, truncated, False, extraction)  # type: ignore[arg-type]


def _executions(
    given: Sequence[evaluation.Answer],
    sides: Mapping[str, Sequence[Given]],
    chosen: Sequence[Problem],
) -> dict[tuple[str, str], Execution]:
    found = {}
    for one in given:
        if one.code_sha is not None:
            stated = sides[one.arm][chosen.index(one.item.problem)]
            passed = stated.passes and not one.truncated
            detail = "ok" if passed else f"AssertionError: {HOSTILE[0]}"
            found[one.item.problem.task_id, one.code_sha] = Execution(
                "passed" if passed else "wrong", detail
            )
    return found


def short_answers_run(path: Path, said: Mapping[str, Sequence[str]], n_predict: int = 8) -> Path:
    """A finished measurement of short answers: question i is answered by ``said[condition][i]``.

    The first condition is the base; the others stand for adapters of that name.
    """
    count = len(next(iter(said.values())))
    items = built_in("short_answers", ShortAnswer)[:count]
    instrument = ShortAnswers(items, (), None, n_predict)  # type: ignore[arg-type]
    edits = tuple(Path("/adapters") / name for name in said if name != BASE)
    config = parse({"instrument": "short-answers", "adapters": edits, "n_predict": (n_predict,)})
    gates = load_gates()
    described = {"n_predict": n_predict, "items_sha256": items_sha256(items)}
    document = {
        **provenance.first_manifest("measure", config.model_dump(mode="json"), ["threearc"]),
        "model": {"name": "prepared answers"},
        "backend": "scripted",
        "measurement": described,
        "gates": gates.to_json(),
    }
    records = {
        name: [
            {**asdict(score(item, text, (), truncated=False)), "kind": item.kind, "ids": [],
             "near_ties": 0}
            for item, text in zip(items, texts, strict=True)
        ]
        for name, texts in said.items()
    }  # fmt: skip
    with RunDirectory.create(path, document) as run:
        for condition in conditions_of(config):
            for record in records[condition.name]:
                run.json_lines(f"{condition.slug}.jsonl").append(record)
        run.write_json(METRICS, {
            "schema_version": "threearc-measure-2",
            "instrument": config.instrument,
            "model": document["model"],
            "n_items": count,
            "conditions": {
                name: {
                    "result": instrument.summarise(rows, gates),
                    "against": None if name == BASE else BASE,
                    "comparison": None if name == BASE
                    else instrument.compare(records[BASE], rows, gates),
                }
                for name, rows in records.items()
            },
            "config": document["config"],
            "made_with": {k: v for k, v in document.items()
                          if k not in ("config", "command", "arc")},
        })  # fmt: skip
    return path
