"""Decode both arms through llama.cpp, run the code, and say what became of every item."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from arcs.arc1.problems import Item, answer_key
from arcs.progress import Reporter
from arcs.runs import JsonLines, RunDirectory, write_text_atomically
from backends.interface import GREEDY, Completion, LanguageModel, Sampling
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

BASE, SFT, TRAINED = "base", "sft", "trained"
ARMS = (BASE, TRAINED)
"""Of every run; where SFT is followed by DPO, :data:`SFT` stands between them."""


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
    *,
    sampling: Sampling = GREEDY,
    stops: Sequence[str] = (),
) -> int:
    """Decode what is not yet in ``store`` at the largest n_predict; returns ids generated now.

    ``stops``: strings that end an answer beside those of the prompt style.
    """
    done = completions(store, items, config)
    missing = [item.prompt for item in items if item.key not in done]
    if not missing:
        return 0
    strings = stop_strings(config.prompt_style, stops)
    stopper = stop_when(encoder.decode, strings) if strings else None
    produced = 0
    with reporter.bar(label, len(items), "items", done=len(done)) as bar:

        def keep(completion: Completion) -> None:
            nonlocal produced
            item = items_by_key[answer_key(completion.item_id, completion.sample)]
            produced += len(completion.ids) - len(item.prompt.generated)
            store.append(_to_record(completion, item.prompt_sha))
            bar.advance(1, f"{completion.item_id}: {completion.finish_reason}")

        items_by_key = {item.key: item for item in items}
        model.generate(
            missing,
            max_tokens=config.n_predict[-1],
            stop_ids=encoder.stop_ids,
            stop_when=stopper,
            on_done=keep,
            sampling=sampling,
        )
    return produced


def stop_strings(style: PromptStyle, more: Sequence[str] = ()) -> tuple[str, ...]:
    """What ends an answer: the prompt style's own strings, and the user's."""
    return (*(STOP_STRINGS if style == "raw" else ()), *more)


def _to_record(completion: Completion, prompt_sha: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "item_id": completion.item_id,
        "prompt_sha": prompt_sha,
        "ids": list(completion.ids),
        "finish_reason": completion.finish_reason,
        "near_ties": completion.near_ties,
    }
    if completion.sample:
        record["sample"] = completion.sample
    if completion.logprobs is not None:
        # the shortest digits that read back as the same float32
        record["logprobs"] = [float(str(np.float32(one))) for one in completion.logprobs]
    return record


def completions(store: JsonLines, items: Sequence[Item], config: Settings) -> dict[str, Completion]:
    """The stored decodes by :attr:`Item.key`, joined by that and checked by prompt hash.

    Raises UserError where a record belongs to another prompt or is there twice.
    """
    by_key = {item.key: item for item in items}
    found: dict[str, Completion] = {}
    for record in store.records:
        key = record_key(record)
        item = by_key.get(key)
        if item is None or record["prompt_sha"] != item.prompt_sha or key in found:
            raise UserError(
                f"{store.path}: {key} does not belong to this run's prompts; "
                "start a new run with --out"
            )
        logprobs = record.get("logprobs")
        found[key] = Completion(
            item_id=record["item_id"],
            prompt_ids=item.prompt.ids,
            ids=tuple(record["ids"]),
            finish_reason=record["finish_reason"],
            seconds=0.0,
            sample=item.prompt.sample,
            near_ties=record.get("near_ties"),
            logprobs=None if logprobs is None else tuple(logprobs),
        )
    return found


def record_key(record: Mapping[str, Any]) -> str:
    """:attr:`Item.key` of a stored record."""
    return answer_key(record["item_id"], record.get("sample", 0))


def answers(
    arm: str,
    done: Mapping[str, Completion],
    items: Sequence[Item],
    encoder: ChatEncoder,
    config: Settings,
    *,
    stops: Sequence[str] = (),
) -> Iterator[Answer]:
    """Every item of one arm at every n_predict, cut from the one decode.

    The text ends before the stop string that begins first; ``stops`` as in :func:`decode`.
    """
    strings = stop_strings(config.prompt_style, stops)
    for item in items:
        completion = done[item.key]
        stuck = completion.finish_reason == "length" and repetition_loop(completion.ids) is not None
        for n in config.n_predict:
            view = view_at(completion, n, looping=stuck)
            text = encoder.decode(view.ids)
            if strings:
                text = cut_at_stop_string(text, strings)
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
    """Arm -> n_predict -> one result an answer (its key as item id), in item order."""
    table: dict[str, dict[int, list[ItemResult]]] = {}
    for answer in given:
        table.setdefault(answer.arm, {}).setdefault(answer.n_predict, []).append(
            ItemResult(
                item_id=answer.item.key,
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
        execution = execution_of(answer, executions)
        sample = answer.item.prompt.sample
        yield {
            "arm": answer.arm,
            "item_id": answer.item.problem.task_id,
            **({"sample": sample} if sample else {}),
            "n_predict": answer.n_predict,
            "outcome": str(outcome[answer.arm, answer.n_predict, answer.item.key].outcome),
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
