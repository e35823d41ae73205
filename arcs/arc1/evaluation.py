"""Decode both arms through llama.cpp, run the code, and say what became of every item."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from arcs.arc1.problems import Item
from arcs.progress import Reporter
from arcs.runs import JsonLines, RunDirectory, write_text_atomically
from backends.interface import Completion, LanguageModel
from evals.budgets import view_at
from evals.humaneval.execution import Execution, Limits, execute_many
from evals.humaneval.extraction import Extraction, extract
from evals.humaneval.outcomes import ItemResult
from evals.humaneval.prompts import STOP_STRINGS, PromptStyle, cut_at_stop_string, stop_when
from evals.humaneval.sandbox import IsolationLevel
from evals.humaneval.scoring import classify
from evals.truncation import repetition_loop
from models.chat import ChatEncoder
from models.errors import UserError

ARMS = ("base", "trained")


class Settings(Protocol):
    """What of a run's settings decides how items are decoded and cut."""

    @property
    def n_predict(self) -> tuple[int, ...]:
        """Rising; one decode at the last gives all."""

    @property
    def prompt_style(self) -> PromptStyle:
        """``chat`` or ``raw``."""


@dataclass(frozen=True)
class Answer:
    """What one arm had said about one item after n generated ids."""

    arm: str
    item: Item
    n_predict: int
    text: str
    truncated: bool
    loop: bool
    extraction: Extraction

    @property
    def code_sha(self) -> str | None:
        """Hash of the extracted program; None where there is none."""
        code = self.extraction.code
        return None if code is None else hashlib.sha256(code.encode()).hexdigest()


def decode(
    model: LanguageModel,
    encoder: ChatEncoder,
    items: Sequence[Item],
    config: Settings,
    store: JsonLines,
    label: str,
    reporter: Reporter,
) -> int:
    """Decode what is not yet in ``store`` at the largest n_predict; returns ids generated now."""
    done = completions(store, items, config)
    missing = [item.prompt for item in items if item.problem.task_id not in done]
    if not missing:
        return 0
    stopper = stop_when(encoder.decode, STOP_STRINGS) if config.prompt_style == "raw" else None
    produced = 0
    with reporter.bar(label, len(items), "items", done=len(done)) as bar:

        def keep(completion: Completion) -> None:
            nonlocal produced
            item = items_by_id[completion.item_id]
            produced += len(completion.ids) - len(item.prompt.generated)
            store.append(_to_record(completion, item.prompt_sha))
            bar.advance(1, f"{completion.item_id}: {completion.finish_reason}")

        items_by_id = {item.problem.task_id: item for item in items}
        model.generate(
            missing,
            max_tokens=config.n_predict[-1],
            stop_ids=encoder.stop_ids,
            stop_when=stopper,
            on_done=keep,
        )
    return produced


def _to_record(completion: Completion, prompt_sha: str) -> dict[str, Any]:
    return {
        "item_id": completion.item_id,
        "prompt_sha": prompt_sha,
        "ids": list(completion.ids),
        "finish_reason": completion.finish_reason,
        "near_ties": completion.near_ties,
    }


def completions(store: JsonLines, items: Sequence[Item], config: Settings) -> dict[str, Completion]:
    """The stored decodes by item id, joined by id and checked by prompt hash.

    Raises UserError where a record belongs to another prompt or is there twice.
    """
    by_id = {item.problem.task_id: item for item in items}
    found: dict[str, Completion] = {}
    for record in store.records:
        item = by_id.get(record["item_id"])
        if item is None or record["prompt_sha"] != item.prompt_sha or record["item_id"] in found:
            raise UserError(
                f"{store.path}: {record['item_id']} does not belong to this run's prompts; "
                "start a new run with --out"
            )
        found[record["item_id"]] = Completion(
            item_id=record["item_id"],
            prompt_ids=item.prompt.ids,
            ids=tuple(record["ids"]),
            finish_reason=record["finish_reason"],
            seconds=0.0,
            near_ties=record.get("near_ties"),
        )
    return found


def answers(
    arm: str,
    done: Mapping[str, Completion],
    items: Sequence[Item],
    encoder: ChatEncoder,
    config: Settings,
) -> Iterator[Answer]:
    """Every item of one arm at every n_predict, cut from the one decode."""
    for item in items:
        completion = done[item.problem.task_id]
        stuck = completion.finish_reason == "length" and repetition_loop(completion.ids) is not None
        for n in config.n_predict:
            view = view_at(completion, n, looping=stuck)
            text = encoder.decode(view.ids)
            if config.prompt_style == "raw":
                text = cut_at_stop_string(text)
            truncated = view.finish_reason == "length"
            yield Answer(
                arm=arm,
                item=item,
                n_predict=n,
                text=text,
                truncated=truncated,
                loop=truncated and repetition_loop(view.ids) is not None,
                extraction=extract(
                    text, item.problem, style=config.prompt_style, think_open=item.think_open
                ),
            )


def execute(
    given: Sequence[Answer],
    store: JsonLines,
    level: IsolationLevel,
    limits: Limits,
    workers: int,
    reporter: Reporter,
) -> dict[tuple[str, str], Execution]:
    """Run every distinct program once; returns (task id, code hash) -> execution.

    Infrastructure errors are not kept: a continued run tries them again.
    """
    done = {
        (record["task_id"], record["code_sha"]): Execution(record["status"], record["detail"])
        for record in store.records
    }
    jobs = {
        (answer.item.problem.task_id, answer.code_sha): (
            answer.item.problem,
            answer.extraction.code,
        )
        for answer in given
        if answer.code_sha is not None
    }
    todo = [
        (key, problem, code)
        for key, (problem, code) in jobs.items()
        if key not in done and code is not None
    ]
    with reporter.bar("running code", len(jobs), "programs", done=len(jobs) - len(todo)) as bar:

        def keep(key: tuple[str, str], execution: Execution) -> None:
            done[key] = execution
            if execution.status != "infrastructure_error":
                store.append(
                    {
                        "task_id": key[0],
                        "code_sha": key[1],
                        "status": execution.status,
                        "detail": execution.detail,
                    }
                )
            bar.advance(1, f"{key[0]}: {execution.status}")

        execute_many(todo, level=level, limits=limits, workers=workers, on_done=keep)
    return done


def results(
    given: Sequence[Answer], executions: Mapping[tuple[str, str], Execution]
) -> dict[str, dict[int, list[ItemResult]]]:
    """Arm -> n_predict -> one result an item, in item order."""
    table: dict[str, dict[int, list[ItemResult]]] = {}
    for answer in given:
        table.setdefault(answer.arm, {}).setdefault(answer.n_predict, []).append(
            ItemResult(
                item_id=answer.item.problem.task_id,
                outcome=classify(
                    answer.extraction, execution_of(answer, executions), truncated=answer.truncated
                ),
                truncated=answer.truncated,
                loop=answer.loop,
                answer_sha=hashlib.sha256(answer.text.encode()).hexdigest(),
            )
        )
    return table


def execution_of(
    answer: Answer, executions: Mapping[tuple[str, str], Execution]
) -> Execution | None:
    """The execution of an answer's program; None where it has no program."""
    if answer.code_sha is None:
        return None
    return executions[(answer.item.problem.task_id, answer.code_sha)]


def item_records(
    given: Sequence[Answer],
    executions: Mapping[tuple[str, str], Execution],
    table: Mapping[str, Mapping[int, Sequence[ItemResult]]],
) -> Iterator[dict[str, Any]]:
    """One readable record an (arm, item, n_predict): the transcript behind every number."""
    outcome = {
        (arm, n, result.item_id): result
        for arm, budgets in table.items()
        for n, rows in budgets.items()
        for result in rows
    }
    for answer in given:
        task_id = answer.item.problem.task_id
        execution = execution_of(answer, executions)
        yield {
            "arm": answer.arm,
            "item_id": task_id,
            "n_predict": answer.n_predict,
            "outcome": str(outcome[answer.arm, answer.n_predict, task_id].outcome),
            "truncated": answer.truncated,
            "loop": answer.loop,
            "extraction": answer.extraction.reason,
            "execution": None if execution is None else execution.detail,
            "code_sha": answer.code_sha,
            "text": answer.text,
        }


def store_of(run: RunDirectory, arm: str, budget: int | None = None) -> JsonLines:
    """The completions file of one arm; with ``budget``, of those continued up to it."""
    stage = arm if budget is None else f"{arm}.{budget}"
    return run.json_lines(f"{stage}.completions.jsonl")


def write_items(path: Path, records: Iterator[dict[str, Any]]) -> None:
    """Write the item records as JSONL, atomically."""
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    write_text_atomically(path, "".join(line + "\n" for line in lines))
