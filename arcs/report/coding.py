"""Transcripts of executed benchmarks (``items.jsonl`` of arc1 and eval), ready to be shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcs.arc1.problems import answer_key
from arcs.report.stored import StoredRun
from arcs.report.view import Answer, Block, Item, State
from evals.benchmarks import Benchmark, load_benchmark
from evals.humaneval.extraction import extract
from evals.humaneval.problems import Problem
from evals.humaneval.prompts import PromptStyle
from models.errors import UserError

ITEMS = "items.jsonl"
Key = tuple[str, int]
"""Item id and sample."""


@dataclass(frozen=True)
class Arm:
    """One arm of a run."""

    record: str
    """``arm`` of its records."""
    condition: str
    """As it is shown."""
    against: str | None
    """``record`` of the arm that it is compared with; None for a base."""


def problems_of(run: StoredRun) -> tuple[Mapping[str, Problem], str | None]:
    """The benchmark's problems by id, and what is wrong where they are not those of the run."""
    config, stored = run.manifest.get("config") or {}, run.manifest.get("evaluation") or {}
    name = str(config.get("benchmark", "humaneval"))
    try:
        benchmark: Benchmark = load_benchmark(name)
    except UserError as error:
        return {}, f"Prompts, tests and programs are not shown: {error}."
    if benchmark.dataset_sha256 != stored.get("dataset_sha256"):
        return {}, f"Prompts, tests and programs are not shown: {name} has changed since the run."
    return {problem.task_id: problem for problem in benchmark.problems}, None


def items_of(
    run: StoredRun, arms: Sequence[Arm], problems: Mapping[str, Problem]
) -> tuple[Item, ...]:
    """Every item with its answers in the order of ``arms``; several samples are items each."""
    style = (run.manifest.get("config") or {}).get("prompt_style", "chat")
    records: dict[Key, dict[str, list[dict[str, Any]]]] = {}
    for record in run.lines(ITEMS):
        key = (record["item_id"], record.get("sample", 0))
        records.setdefault(key, {}).setdefault(record["arm"], []).append(record)
    return tuple(
        _item(key, by_arm, arms, problems.get(key[0]), style) for key, by_arm in records.items()
    )


def _item(
    key: Key,
    by_arm: Mapping[str, list[dict[str, Any]]],
    arms: Sequence[Arm],
    problem: Problem | None,
    style: PromptStyle,
) -> Item:
    for rows in by_arm.values():
        rows.sort(key=lambda row: int(row["n_predict"]))
    answers = tuple(
        _answer(
            by_arm[arm.record],
            by_arm.get(arm.against) if arm.against else None,
            arm.condition, problem, style,
        )
        for arm in arms
        if arm.record in by_arm
    )  # fmt: skip
    blocks = () if problem is None else (Block("tests", problem.test, "code"),)
    return Item(
        answer_key(*key),
        None if problem is None else problem.prompt,
        answers,
        {"sample": str(key[1])} if key[1] else {},
        blocks,
    )


def _answer(
    rows: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]] | None,
    condition: str,
    problem: Problem | None,
    style: PromptStyle,
) -> Answer:
    longest = rows[-1]["text"]
    before = {row["n_predict"]: row for row in reference or ()}
    states = tuple(
        State(
            {
                "n_predict": str(row["n_predict"]),
                "outcome": row["outcome"],
                "cut": _cut(row),
                "found in": row["extraction"],
                **_change(before.get(row["n_predict"]), row),
            },
            tuple(_blocks(row, longest, problem, style)),
        )
        for row in rows
    )
    return Answer(condition, longest, states, tuple(_marks(rows, longest)))


def _cut(row: Mapping[str, Any]) -> str:
    if not row["truncated"]:
        return "finished"
    return "loop" if row["loop"] else "unfinished"


def _change(before: Mapping[str, Any] | None, row: Mapping[str, Any]) -> dict[str, str]:
    """Against what the arm is compared with; nothing where either result is missing."""
    if before is None or "infrastructure_error" in (before["outcome"], row["outcome"]):
        return {}
    sides = (before["outcome"] == "passed", row["outcome"] == "passed")
    names = {(False, True): "gained", (True, False): "lost", (True, True): "both pass"}
    return {"change": names.get(sides, "both fail")}


def _marks(rows: Iterable[Mapping[str, Any]], longest: str) -> Iterator[tuple[int, str]]:
    for row in rows:
        if row["truncated"]:
            yield _common(row["text"], longest), f"n_predict {row['n_predict']} ended here"


def _common(text: str, longest: str) -> int:
    """Where ``text`` leaves ``longest``: ids cut inside a character decode to another one."""
    if longest.startswith(text):
        return len(text)
    pairs = zip(text, longest, strict=False)
    return next((i for i, (one, two) in enumerate(pairs) if one != two), len(longest))


def _blocks(
    row: Mapping[str, Any], longest: str, problem: Problem | None, style: PromptStyle
) -> Iterator[Block]:
    kept = _common(row["text"], longest)
    if kept < len(row["text"].rstrip("\ufffd")):  # e.g. a stop string begins before the cut
        yield Block("the answer at this n_predict", row["text"], "output")
    code = _program(row, problem, style)
    if code is not None:
        yield Block("program that was run", code, "code")
    if row["execution"] is not None:
        yield Block("what running it gave", str(row["execution"]), "output")


def _program(row: Mapping[str, Any], problem: Problem | None, style: PromptStyle) -> str | None:
    """The extracted program, found again and proven by its hash; None where there is none."""
    if row["code_sha"] is None or problem is None:
        return None
    for think_open in (False, True):
        code = extract(row["text"], problem, style=style, think_open=think_open).code
        if code is not None and hashlib.sha256(code.encode()).hexdigest() == row["code_sha"]:
            return code
    return None
