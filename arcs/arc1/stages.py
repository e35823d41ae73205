"""Decode and judge both arms at the budgets so far, and whether a larger one is needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from arcs.arc1 import evaluation, problems
from arcs.arc1.config import Arc1Config
from arcs.escalation import continued, join, next_budget, undecided
from arcs.instrument import require_same_stage, strangers
from arcs.progress import Reporter
from arcs.runs import RunDirectory, canonical_json
from arcs.verdicts import Comparison, compare
from backends.interface import Completion
from evals.humaneval.execution import Execution
from evals.humaneval.outcomes import ItemResult

if TYPE_CHECKING:
    from arcs.arc1.pipeline import Prepared

EXECUTIONS = "executions.jsonl"


@dataclass(frozen=True)
class Stage:
    """The budgets so far; the last is the one that this stage decodes, or continues, to."""

    config: Arc1Config
    """With ``n_predict`` as it stands in this stage."""
    escalated: bool

    @classmethod
    def first(cls, config: Arc1Config) -> Self:
        """The run's own budgets."""
        return cls(config, escalated=False)

    @property
    def budgets(self) -> tuple[int, ...]:
        """Rising."""
        return self.config.n_predict

    @property
    def suffix(self) -> str:
        """For names of phases; empty in the first stage."""
        return f" to {self.budgets[-1]}" if self.escalated else ""

    @property
    def own(self) -> int | None:
        """The budget in names of files; None in the first stage."""
        return self.budgets[-1] if self.escalated else None

    def next(self, comparisons: Sequence[Comparison]) -> Stage | None:
        """The stage that unfinished answers still need; None where they do not matter."""
        cap = self.config.escalate
        larger = None if cap is None else next_budget(self.budgets[-1], cap)
        if larger is None or not undecided(comparisons):
            return None
        settings = self.config.model_copy(update={"n_predict": (*self.budgets, larger)})
        return Stage(settings, escalated=True)


def decode_arm(
    stage: Stage,
    run: RunDirectory,
    prepared: Prepared,
    arm: str,
    gguf: Path,
    adapter: Path | None,
    done: dict[str, Completion],
    reporter: Reporter,
) -> int:
    """Decode one arm's missing items, or continue its unfinished ones; adds them to ``done``.

    Returns the ids generated now. Raises UserError where another instrument would go on with
    what one began.
    """
    from backends.llamacpp.model import open_gguf

    config = stage.config
    items = continued(prepared.items, done) if stage.escalated else prepared.items
    store = evaluation.store_of(run, arm, stage.own)
    generated = 0
    if len(evaluation.completions(store, items, config)) < len(items):
        with open_gguf(
            gguf,
            adapter=adapter,
            context=problems.context_for(
                prepared.encoder, prepared.benchmark, config.prompt_style, config.n_predict[-1]
            ),
            width=config.width,
            kv_dtype=config.kv_dtype,
            threads=config.threads,
            gpu_layers=config.gpu_layers,
        ) as model:
            engine = model.describe()
            if stage.escalated:
                require_same_stage(run.path, arm, run.manifest()[f"engine_{arm}"], engine)
            name = f"engine_{arm}" + (f"_{stage.own}" if stage.escalated else "")
            run.extend_manifest(**{name: engine})
            label = f"decode {arm}{stage.suffix}"
            generated = evaluation.decode(
                model, prepared.encoder, items, config, store, label, reporter
            )
    join(done, evaluation.completions(store, items, config))
    return generated


@dataclass(frozen=True)
class Judged:
    """What running the code gave, at every budget so far."""

    answers: Sequence[evaluation.Answer]
    executions: Mapping[tuple[str, str], Execution]
    table: Mapping[str, Mapping[int, Sequence[ItemResult]]]
    comparison: Comparison
    """Of the base and what the run ends with."""
    others: Mapping[str, Comparison]
    """Of the base and each arm between them."""

    @property
    def all_comparisons(self) -> tuple[Comparison, ...]:
        """The run's own first."""
        return (self.comparison, *self.others.values())


def judge(
    stage: Stage,
    run: RunDirectory,
    prepared: Prepared,
    done: Mapping[str, Mapping[str, Completion]],
    reporter: Reporter,
) -> Judged:
    """Run the code and compare the arms."""
    given: list[evaluation.Answer] = []
    for arm in done:
        given += evaluation.answers(arm, done[arm], prepared.items, prepared.encoder, stage.config)
    with run.timed(f"execute{stage.suffix}") as counts:
        store = run.json_lines(EXECUTIONS)
        before = len(store.records)
        executions = evaluation.execute(
            given, store, prepared.level, prepared.limits, os.cpu_count() or 1, reporter
        )
        counts["programs"] = len(store.records) - before
    table = evaluation.results(given, executions)
    with run.timed(f"compare{stage.suffix}"):
        compared = {
            arm: compare(
                table[evaluation.BASE],
                table[arm],
                prepared.gates,
                base_settings=settings_sha256(run, evaluation.BASE),
                edited_settings=settings_sha256(run, arm),
                trained_on_test=bool(prepared.shared),
            )
            for arm in done
            if arm != evaluation.BASE
        }
    return Judged(given, executions, table, compared.pop(evaluation.TRAINED), compared)


def settings_sha256(run: RunDirectory, arm: str) -> str:
    """Hash of everything about an arm's evaluation that must be the same in the other arm.

    That is all of it except the edit itself. Later stages of an arm must agree with its first in
    all but the room for text; an arm of which they do not is equal to no other.
    """
    manifest = run.manifest()
    first = manifest[f"engine_{arm}"]
    engine = {k: v for k, v in first.items() if not k.startswith("adapter")}
    shared = {name: manifest[name] for name in ("evaluation", "chat", "sandbox")}
    later = [manifest[name] for name in sorted(manifest) if name.startswith(f"engine_{arm}_")]
    strange = strangers([first, *later])
    mixed = {"arm": arm, "later": strange} if strange else {}
    text = canonical_json({"engine": engine, **shared, **mixed})
    return hashlib.sha256(text.encode()).hexdigest()
