"""Where labels come from: prompts, and what is read of a model's answers to them.

``exact-match``: short questions, compared exactly. ``execution``: small Python tasks, run in the
sandbox; of the disposition self-improving the recovery tasks. ``meter``: the contexts of a meter
axis, whose labels are log-probabilities. ``judge:JUDGE``: cooking questions with checklists,
labelled by that judge.
"""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from arcs.arc1 import evaluation, problems
from arcs.arc2.dispositions import Labelled
from arcs.gates import Gates
from arcs.judging.opening import JudgeOptions, cache_for, check_judge, describe_judge, open_judge
from arcs.judging.responses import Item, Response, judge_responses, spoken
from arcs.judging.validity import judge_validity
from arcs.labels import JudgeSource
from arcs.measure.judged import JudgeSettings
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from arcs.transcripts import Asked, held_to
from backends.interface import Completion, Prompt
from evals.benchmarks import load_benchmark
from evals.coverage import Covered
from evals.exact_match import encode_question, score
from evals.humaneval.execution import Limits
from evals.humaneval.problems import Problem
from evals.humaneval.prompts import PromptStyle
from evals.humaneval.sandbox import IsolationLevel
from evals.items.load import built_in, items_sha256
from evals.items.records import ChefItem, MeterItem, RecoveryItem, ShortAnswer
from evals.items.short_answer import INSTRUCTION
from evals.judges.cache import LabelCache
from evals.judges.instruments import COVERAGE, DELIVERY
from evals.judges.labels import Judge, Label, Question
from evals.judges.lexical import LexicalJudge
from evals.meter import choose
from evals.truncation import repetition_loop
from models.chat import ChatEncoder, EncodedPrompt, Message

EXECUTIONS, LABELS, VALIDITY = "executions.jsonl", "labels.jsonl", "judge.json"
INSTRUMENTS = (COVERAGE.name, DELIVERY.name)
COVERED = 0.5
"""Share of a checklist from which an answer counts as right (PAPER.md 4.1)."""
TOKENS = {"exact-match": 48, "execution": 256, "meter": 48, "judge": 256}
"""n_predict of each kind of labels where none is given."""


class Source(Protocol):
    """Prompts, encoded once, and a way to label the answers."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """One an item, in order."""

    @property
    def asked(self) -> Mapping[str, Asked]:
        """By item."""

    def response_id(self, point: str, item_id: str, seed: int | None) -> str | None:
        """What the kept labels call an answer at a point; None where none are kept."""

    def label(
        self, completions: Sequence[Completion], seed: int | None, point: str
    ) -> list[Labelled]:
        """Label the answers at a point of the sweep, in their order."""

    def describe(self) -> dict[str, Any]:
        """Items, hashes and rules, for the manifest."""


def ids_sha256(prompts: Sequence[Prompt]) -> str:
    """sha-256 (hex) over items and prompt ids, in order."""
    digest = hashlib.sha256()
    for one in prompts:
        digest.update(repr((one.item_id, one.ids)).encode())
    return digest.hexdigest()


def _asked(item_id: str, encoded: EncodedPrompt) -> Prompt:
    return Prompt(item_id, encoded.ids)


def delivered(judge: Judge, questions: Sequence[tuple[str, str, str]]) -> list[Label]:
    """Delivery labels of (id, question, answer)."""
    return judge.label(
        [
            Question(item, DELIVERY, {"question": asked, "response": text})
            for item, asked, text in questions
        ]
    )


def meter_context(one: MeterItem) -> str:
    """The turns before the two continuations, as a person reads them."""
    return _conversation([Message(turn.role, turn.content) for turn in one.context])


def _asserted(label: Label) -> bool | None:
    return None if label.status != "ok" else label.value == "ASSERT"


def plain(
    one: Completion, encoder: ChatEncoder, seed: int | None, asserted: bool | None, **more: Any
) -> Labelled:
    """An answer with what follows from its ids alone."""
    truncated = one.finish_reason == "length"
    loop = truncated and repetition_loop(one.ids) is not None
    known: dict[str, Any] = {"right": None, "open": truncated and not loop, **more}
    return Labelled(
        item_id=one.item_id,
        seed=seed,
        text=encoder.decode(one.ids),
        ids=one.ids,
        truncated=truncated,
        loop=loop,
        asserted=asserted,
        **known,
    )


@dataclass(frozen=True)
class ExactMatch:
    """The short questions."""

    items: tuple[ShortAnswer, ...]
    prompts: tuple[Prompt, ...]
    encoder: ChatEncoder
    name: str = "exact-match"

    @classmethod
    def of(cls, encoder: ChatEncoder, limit: int | None) -> ExactMatch:
        """The first ``limit`` questions (all if None); domains are interleaved."""
        return cls.asking(encoder, built_in("short_answers", ShortAnswer)[:limit])

    @classmethod
    def asking(cls, encoder: ChatEncoder, items: Sequence[ShortAnswer]) -> ExactMatch:
        """These questions."""
        prompts = tuple(_asked(one.id, encode_question(encoder, one)) for one in items)
        return cls(tuple(items), prompts, encoder)

    @property
    def asked(self) -> Mapping[str, Asked]:
        """The questions."""
        return {one.id: Asked(one.prompt, held_to(one)) for one in self.items}

    def response_id(self, point: str, item_id: str, seed: int | None) -> str | None:
        """Nothing is kept."""
        return None

    def label(
        self, completions: Sequence[Completion], seed: int | None, point: str
    ) -> list[Labelled]:
        """Compare exactly; delivery by the lexical rule."""
        items = {one.id: one for one in self.items}
        texts = [self.encoder.decode(one.ids) for one in completions]
        questions = [
            (one.item_id, items[one.item_id].prompt, text)
            for one, text in zip(completions, texts, strict=True)
        ]
        made = []
        for one, text, said in zip(
            completions, texts, delivered(LexicalJudge(), questions), strict=True
        ):
            cut = one.finish_reason == "length"
            found = score(items[one.item_id], text, one.ids, truncated=cut)
            made.append(
                plain(one, self.encoder, seed, _asserted(said), right=found.right,
                       open=found.open, detail=found.reading.value)
            )  # fmt: skip
        return made

    def describe(self) -> dict[str, Any]:
        """Questions and how they are read."""
        return {
            "labels": self.name,
            "dataset": "short_answers",
            "items": len(self.items),
            "items_sha256": items_sha256(self.items),
            "ids_sha256": ids_sha256(self.prompts),
            "instruction": INSTRUCTION,
            "right": "evals/items/short_answer.py",
            "delivery": str(LexicalJudge().id),
        }


@dataclass(frozen=True)
class Execution:
    """Python tasks, run in the sandbox."""

    items: tuple[problems.Item, ...]
    encoder: ChatEncoder
    run: RunDirectory
    level: IsolationLevel
    limits: Limits
    reporter: Reporter
    n_predict: int
    dataset: str
    dataset_sha256: str
    name: str = "execution"
    prompt_style: PromptStyle = "chat"
    turns: Mapping[str, str] = field(default_factory=dict)
    """Item -> the conversation that is answered, where it is more than the task."""

    @classmethod
    def of(
        cls,
        encoder: ChatEncoder,
        limit: int | None,
        run: RunDirectory,
        level: IsolationLevel,
        reporter: Reporter,
        n_predict: int,
        benchmark: str = "small",
    ) -> Execution:
        """Tasks of a benchmark, a fixed unordered choice."""
        found = load_benchmark(benchmark)
        chosen = problems.choose(found, limit)
        given = (run, level, reporter, n_predict, found.title, found.dataset_sha256)
        return cls.asking(encoder, chosen, *given)

    @classmethod
    def asking(
        cls,
        encoder: ChatEncoder,
        tasks: Sequence[Problem],
        run: RunDirectory,
        level: IsolationLevel,
        reporter: Reporter,
        n_predict: int,
        dataset: str,
        dataset_sha256: str,
    ) -> Execution:
        """These tasks of a set."""
        items = tuple(problems.encode(encoder, one, "chat") for one in tasks)
        return cls(items, encoder, run, level, Limits(), reporter, n_predict, dataset,
                   dataset_sha256)  # fmt: skip

    @classmethod
    def recovery(
        cls,
        encoder: ChatEncoder,
        limit: int | None,
        run: RunDirectory,
        level: IsolationLevel,
        reporter: Reporter,
        n_predict: int,
    ) -> Execution:
        """The first ``limit`` recovery tasks (all if None)."""
        records = built_in("recovery", RecoveryItem)[:limit]
        return cls.correcting(encoder, records, run, level, reporter, n_predict)

    @classmethod
    def correcting(
        cls,
        encoder: ChatEncoder,
        records: Sequence[RecoveryItem],
        run: RunDirectory,
        level: IsolationLevel,
        reporter: Reporter,
        n_predict: int,
    ) -> Execution:
        """A failed first answer, what failed, and the request to put it right."""
        items = []
        for one in records:
            encoded = encoder.encode_prompt(_second_turn(one))
            ids_text = ",".join(map(str, encoded.ids))
            items.append(
                problems.Item(
                    problem=_problem(one),
                    prompt=Prompt(one.id, encoded.ids),
                    think_open=encoded.think_open,
                    prompt_sha=hashlib.sha256(ids_text.encode()).hexdigest(),
                )
            )
        turns = {one.id: _conversation(_second_turn(one)) for one in records}
        return cls(tuple(items), encoder, run, level, Limits(), reporter, n_predict, "recovery",
                   items_sha256(records), turns=turns)  # fmt: skip

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """One an item."""
        return tuple(one.prompt for one in self.items)

    @property
    def asked(self) -> Mapping[str, Asked]:
        """The tasks; of a second turn what stands before it as well."""
        return {
            one.key: Asked(self.turns.get(one.key, one.problem.prompt), held_to(one.problem))
            for one in self.items
        }

    def response_id(self, point: str, item_id: str, seed: int | None) -> str | None:
        """Nothing is kept."""
        return None

    def label(
        self, completions: Sequence[Completion], seed: int | None, point: str
    ) -> list[Labelled]:
        """Run each distinct program once; what was run is kept in the run directory."""
        items = {one.prompt.item_id: one for one in self.items}
        settings = _Settings((self.n_predict,), self.prompt_style)
        done = {one.item_id: one for one in completions}
        given = list(
            evaluation.answers("arc2", done, [items[name] for name in done], self.encoder, settings)
        )
        store = self.run.json_lines(EXECUTIONS)
        executions = evaluation.execute(
            given, store, self.level, self.limits, os.cpu_count() or 1, self.reporter
        )
        results = evaluation.results(given, executions)["arc2"][self.n_predict] if given else []
        questions = [(one.item.problem.task_id, one.item.problem.prompt, one.text) for one in given]
        made = []
        for one, result, said in zip(
            given, results, delivered(LexicalJudge(), questions), strict=True
        ):
            completion = done[one.item.prompt.item_id]
            ran = evaluation.execution_of(one, executions)
            made.append(
                plain(completion, self.encoder, seed, _asserted(said), right=result.passed,
                       open=result.unfinished, detail=str(result.outcome),
                       program=one.extraction.code,
                       output=None if ran is None else ran.detail or ran.status)
            )  # fmt: skip
        return made

    def describe(self) -> dict[str, Any]:
        """Tasks, and where they run."""
        return {
            "labels": self.name,
            "dataset": self.dataset,
            "dataset_sha256": self.dataset_sha256,
            "items": len(self.items),
            "ids_sha256": ids_sha256(self.prompts),
            "right": "all tests pass",
            "sandbox": {"level": self.level.name, "limits": self.limits.description()},
            "delivery": str(LexicalJudge().id),
        }


@dataclass(frozen=True)
class _Settings:
    n_predict: tuple[int, ...]
    prompt_style: PromptStyle


def _second_turn(one: RecoveryItem) -> list[Message]:
    feedback = (
        f"That is not right yet. This test fails:\n\n```python\n{one.failing_test}\n```\n\n"
        f"What the function gave: {one.observed}\n\nCorrect the function and show it whole, in one "
        "```python block."
    )
    return [
        Message("user", one.prompt),
        Message("assistant", one.first_answer),
        Message("user", feedback),
    ]


def _conversation(turns: Sequence[Message]) -> str:
    return "\n\n".join(f"{one.role}: {one.content}" for one in turns)


def _problem(one: RecoveryItem) -> Problem:
    """The record in HumanEval's form; the tests call the function by its own name."""
    body = "\n".join([f"{one.entry_point} = candidate", *one.tests])
    return Problem(
        task_id=one.id,
        prompt=f"def {one.entry_point}(*args, **kwargs):\n",
        entry_point=one.entry_point,
        canonical_solution=one.reference,
        test="def check(candidate):\n" + textwrap.indent(body, "    ") + "\n",
    )


@dataclass(frozen=True)
class MeterContexts:
    """The contexts of a meter axis; nothing is right or wrong about the answers."""

    items: tuple[MeterItem, ...]
    prompts: tuple[Prompt, ...]
    encoder: ChatEncoder
    axis: str
    name: str = "meter"

    @classmethod
    def of(cls, encoder: ChatEncoder, axis: str, limit: int | None) -> MeterContexts:
        """The first ``limit`` items of the axis; None: half of them, the sweep needs others."""
        found = choose(built_in("meter", MeterItem), (axis,), limit)
        items = tuple(found if limit is not None else found[: len(found) // 2])
        prompts = tuple(
            _asked(
                one.id,
                encoder.encode_prompt([Message(turn.role, turn.content) for turn in one.context]),
            )
            for one in items
        )
        return cls(items, prompts, encoder, axis)

    @property
    def asked(self) -> Mapping[str, Asked]:
        """The contexts."""
        return {one.id: Asked(meter_context(one)) for one in self.items}

    def response_id(self, point: str, item_id: str, seed: int | None) -> str | None:
        """Nothing is kept."""
        return None

    def label(
        self, completions: Sequence[Completion], seed: int | None, point: str
    ) -> list[Labelled]:
        """Delivery by the lexical rule; the contrasts are read apart."""
        items = {one.id: one for one in self.items}
        questions = [
            (one.item_id, items[one.item_id].context[-1].content, self.encoder.decode(one.ids))
            for one in completions
        ]
        said = delivered(LexicalJudge(), questions)
        return [
            plain(one, self.encoder, seed, _asserted(label))
            for one, label in zip(completions, said, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Contexts."""
        return {
            "labels": self.name,
            "dataset": "meter",
            "axis": self.axis,
            "items": len(self.items),
            "items_sha256": items_sha256(self.items),
            "ids_sha256": ids_sha256(self.prompts),
            "delivery": str(LexicalJudge().id),
        }


def chef_prompts(
    encoder: ChatEncoder, limit: int | None
) -> tuple[tuple[ChefItem, ...], tuple[Prompt, ...]]:
    """The first ``limit`` cooking questions (all if None), and how they are asked."""
    items = built_in("chef_train", ChefItem)[:limit]
    return items, _chef_asked(encoder, items)


def _chef_asked(encoder: ChatEncoder, items: Sequence[ChefItem]) -> tuple[Prompt, ...]:
    return tuple(
        _asked(one.id, encoder.encode_prompt([Message("user", one.prompt)])) for one in items
    )


@dataclass(frozen=True)
class Judged:
    """Cooking questions with checklists, labelled by a judge."""

    items: tuple[ChefItem, ...]
    prompts: tuple[Prompt, ...]
    encoder: ChatEncoder
    judge: JudgeSource
    options: JudgeOptions
    cache: LabelCache | None
    run: RunDirectory
    reporter: Reporter
    name: str = "judge"

    @classmethod
    def of(
        cls,
        encoder: ChatEncoder,
        judge: JudgeSource,
        settings: JudgeSettings,
        limit: int | None,
        run: RunDirectory,
        reporter: Reporter,
    ) -> Judged:
        """The first ``limit`` questions (all if None). Raises UserError as the judge."""
        items = built_in("chef_train", ChefItem)[:limit]
        return cls.asking(encoder, items, judge, settings, run, reporter)

    @classmethod
    def asking(
        cls,
        encoder: ChatEncoder,
        items: Sequence[ChefItem],
        judge: JudgeSource,
        settings: JudgeSettings,
        run: RunDirectory,
        reporter: Reporter,
    ) -> Judged:
        """These questions. Raises UserError as the judge."""
        prompts = _chef_asked(encoder, items)
        check_judge(judge, reporter, settings.options)
        cache = cache_for(judge, settings.cache)
        return cls(tuple(items), prompts, encoder, judge, settings.options, cache, run, reporter)

    @property
    def asked(self) -> Mapping[str, Asked]:
        """The questions."""
        return {one.id: Asked(one.prompt, held_to(one)) for one in self.items}

    def response_id(self, point: str, item_id: str, seed: int | None) -> str | None:
        """``point/item``, with ``@seed`` behind it where answers are drawn."""
        return f"{point}/{item_id}" + ("" if seed is None else f"@{seed}")

    def label(
        self, completions: Sequence[Completion], seed: int | None, point: str
    ) -> list[Labelled]:
        """Coverage claim by claim, and delivery; a label that is missing stays missing."""
        items = {one.id: Item.of(one) for one in self.items}
        responses = [
            Response(
                str(self.response_id(point, one.item_id, seed)), one.item_id,
                spoken(self.encoder.decode(one.ids)),
            )
            for one in completions
        ]  # fmt: skip
        with open_judge(self.judge, self.reporter, self.options) as judge:
            found = judge_responses(
                judge, INSTRUMENTS, items, responses, cache=self.cache,
                kept=self.run.json_lines(LABELS), reporter=self.reporter,
            )  # fmt: skip
        made = []
        for one, response in zip(completions, responses, strict=True):
            share = Covered(one.item_id, found.covered(response)).share
            said = found.value(response, DELIVERY.name)
            made.append(
                plain(
                    one, self.encoder, seed, None if said is None else said == "ASSERT",
                    right=None if share is None else share >= COVERED, coverage=share,
                )
            )  # fmt: skip
        return made

    def validity(self, gates: Gates) -> dict[str, Any]:
        """The judge held to its bar on the references that ship; kept, so decided once a run."""
        if (self.run.path / VALIDITY).exists():
            return self.run.read_json(VALIDITY)
        with open_judge(self.judge, self.reporter, self.options) as judge:
            found = judge_validity(
                judge, INSTRUMENTS, gates, cache=self.cache, reporter=self.reporter
            )
            made = {
                "judge": describe_judge(judge),
                "failing": found.failing(INSTRUMENTS),
                "instruments": found.to_json(),
            }
        if not any(one["statuses"].get("error") for one in found.instruments.values()):
            self.run.write_json(VALIDITY, made)  # what failed is asked again in a continuation
        return made

    def describe(self) -> dict[str, Any]:
        """Questions, and who judges."""
        return {
            "labels": self.name,
            "dataset": "chef_train",
            "items": len(self.items),
            "items_sha256": items_sha256(self.items),
            "ids_sha256": ids_sha256(self.prompts),
            "judge": str(self.judge),
            "instruments": {one.name: one.sha256 for one in (COVERAGE, DELIVERY)},
            "right": f"at least {COVERED:g} of the checklist",
        }
