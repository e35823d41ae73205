"""One arm's decode, or the continuation of its unfinished answers, kept as it finishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arcs import provenance
from arcs.arc1 import evaluation
from arcs.arc1.problems import Item
from arcs.escalation import continued, join
from arcs.evaluate.config import BASE, CONTROL, Condition, EvalConfig
from arcs.evaluate.fast import TOKENS, changed_texts, spread
from arcs.evaluate.files import Files, files_of
from arcs.instrument import Only, require_same_instrument, require_same_stage
from arcs.progress import Reporter
from arcs.runs import JsonLines, RunDirectory
from backends.interface import Completion

if TYPE_CHECKING:
    from arcs.evaluate.pipeline import Prepared
    from backends.llamacpp.model import LlamaCppModel

FILES = "files"
SITTINGS = "fast.jsonl"
"""One line each time that a stage of a fast run was begun or continued."""


@dataclass(frozen=True)
class Arm:
    """One condition at one quantisation."""

    quantisation: str
    condition: Condition

    @property
    def name(self) -> str:
        """For records and files."""
        return f"{self.quantisation}.{self.condition.slug}"

    def store(self, run: RunDirectory, budget: int) -> JsonLines:
        """Completions decoded (or continued) up to ``budget``."""
        return run.json_lines(f"{self.name}.{budget}.completions.jsonl")

    def repeatable(self, run: RunDirectory) -> JsonLines:
        """The sample of a fast run that is decoded in the repeatable mode."""
        return run.json_lines(f"{self.name}.repeatable.completions.jsonl")


@dataclass(frozen=True)
class Stage:
    """What a decode of any arm needs to know."""

    config: EvalConfig
    run: RunDirectory
    prepared: Prepared
    reporter: Reporter
    context: int
    """Tokens a sequence."""
    budgets: tuple[int, ...]
    """Rising; the last is decoded to. Longer than the run's own where it was escalated."""
    only: Only | None = None
    """What another run asks of the instrument; None: it is no part of one."""

    @property
    def budget(self) -> int:
        """The largest."""
        return self.budgets[-1]

    @property
    def first(self) -> bool:
        """Whether nothing was escalated yet."""
        return len(self.budgets) == len(self.config.n_predict)

    @property
    def settings(self) -> EvalConfig:
        """The run's settings with the budgets of this stage."""
        return self.config.model_copy(update={"n_predict": self.budgets})


def decode_arm(
    stage: Stage, arm: Arm, earlier: dict[str, Completion], counts: dict[str, float]
) -> None:
    """Decode or continue one arm to the largest budget, into ``earlier``.

    ``counts`` gets the ids generated now. Raises UserError as its parts.
    """
    config, run = stage.config, stage.run
    if config.fast and stage.first:
        _decode_sample(stage, arm, counts)
    items = stage.prepared.items
    wanted = list(items) if stage.first else continued(items, earlier)
    store = arm.store(run, stage.budget)
    if len(evaluation.completions(store, wanted, stage.settings)) < len(wanted):
        with _opened(stage, arm, fast=config.fast) as (model, files):
            engine = _engine(model, files)
            _keep_engine(stage, arm, engine)
            if files.merge is not None and f"merge.{arm.name}" not in run.manifest():
                # the first proof stands: the weights are the same, or _keep_engine had refused
                run.extend_manifest(**{f"merge.{arm.name}": files.merge})
            if config.fast:
                run.json_lines(SITTINGS).append(
                    {"arm": arm.name, "n_predict": stage.budget, "done": len(store.records)}
                )
            label = f"{arm.quantisation} {arm.condition.name}"
            _decode(stage.settings, stage, model, wanted, store, label, counts)
    join(earlier, evaluation.completions(store, wanted, stage.settings))


def fast_of(stage: Stage, arm: Arm, done: Mapping[str, Completion]) -> dict[str, Any] | None:
    """What the fast mode changed in one arm, and in how many sittings it was decoded.

    None in the repeatable mode. ``done``: the arm's answers, at any budget.
    """
    if not stage.config.fast:
        return None
    budget = _sample_budget(stage.config)
    sample = _sample(stage)
    settings = stage.config.model_copy(update={"n_predict": (budget,)})
    repeatable = evaluation.completions(arm.repeatable(stage.run), sample, settings)
    sittings = [one for one in stage.run.json_lines(SITTINGS).records if one["arm"] == arm.name]
    return {
        **changed_texts(repeatable, done, budget),
        "sittings": len(sittings),
        "continued": any(one["done"] for one in sittings),
    }


def _sample(stage: Stage) -> tuple[Item, ...]:
    """Items compared, their first samples."""
    return spread([item for item in stage.prepared.items if not item.prompt.sample])


def _sample_budget(config: EvalConfig) -> int:
    return min(TOKENS, config.n_predict[-1])


def _decode_sample(stage: Stage, arm: Arm, counts: dict[str, float]) -> None:
    """Decode the beginning of a fixed sample in the repeatable mode."""
    settings = stage.config.model_copy(update={"n_predict": (_sample_budget(stage.config),)})
    sample, store = _sample(stage), arm.repeatable(stage.run)
    if len(evaluation.completions(store, sample, settings)) == len(sample):
        return
    with _opened(stage, arm, fast=False) as (model, files):
        stage.run.extend_manifest(**{f"engine.{arm.name}.repeatable": _engine(model, files)})
        label = f"{arm.quantisation} {arm.condition.name}, repeatable sample"
        _decode(settings, stage, model, sample, store, label, counts)


@contextmanager
def _opened(stage: Stage, arm: Arm, *, fast: bool) -> Iterator[tuple[LlamaCppModel, Files]]:
    from backends.llamacpp.model import open_gguf

    config, prepared = stage.config, stage.prepared
    with (
        files_of(
            arm.condition, arm.quantisation, config, prepared.directory, prepared.layers,
            stage.run.path / FILES, stage.reporter,
        ) as files,
        open_gguf(
            files.gguf,
            adapter=files.adapter,
            context=stage.context,
            width=config.width,
            kv_dtype=config.kv_dtype,
            threads=config.threads,
            gpu_layers=config.gpu_layers,
            kv_unified=fast,
            prefix=prepared.prefix,
            logprobs=config.logprobs,
        ) as model,
    ):  # fmt: skip
        yield model, files


def _engine(model: LlamaCppModel, files: Files) -> dict[str, Any]:
    return {**model.describe(), "processor": provenance.hardware()["processor"], **files.made}


def _decode(
    settings: EvalConfig,
    stage: Stage,
    model: LlamaCppModel,
    items: Sequence[Item],
    store: JsonLines,
    label: str,
    counts: dict[str, float],
) -> None:
    before = len(store.records)
    try:
        evaluation.decode(
            model, stage.prepared.encoder, items, settings, store, label, stage.reporter,
            sampling=settings.sampling, stops=settings.stops,
        )  # fmt: skip
    finally:  # an interruption's finished answers count too
        counts["tokens"] = counts.get("tokens", 0) + generated_now(store.records[before:], items)


def generated_now(records: Sequence[Mapping[str, Any]], items: Sequence[Item]) -> int:
    """Ids in new records of completions that were not there to be read again."""
    replayed = {item.key: len(item.prompt.generated) for item in items}
    return sum(len(one["ids"]) - replayed[evaluation.record_key(one)] for one in records)


def reference_of(conditions: Sequence[Condition], condition: Condition) -> Condition:
    """What ``condition`` is compared with."""
    return next(one for one in conditions if one.name == condition.against)


def _keep_engine(stage: Stage, arm: Arm, engine: Mapping[str, Any]) -> None:
    """Write what decodes this stage to the manifest, or stop where it cannot be compared."""
    run, manifest, first = stage.run, stage.run.manifest(), stage.config.n_predict[-1]
    if stage.only is not None:
        stage.only.check(arm.name, engine, manifest)
    if stage.budget != first:
        require_same_stage(run.path, arm.name, manifest[f"engine.{arm.name}.{first}"], engine)
    elif arm.condition.name not in (BASE, CONTROL):
        against = reference_of(stage.prepared.conditions, arm.condition)
        reference = Arm(arm.quantisation, against)
        require_same_instrument(
            run.path,
            (reference.name, arm.name),
            manifest[f"engine.{reference.name}.{first}"],
            engine,
        )
    run.extend_manifest(**{f"engine.{arm.name}.{stage.budget}": engine})
