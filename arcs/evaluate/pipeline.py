"""Evaluate the base and its edits at every quantisation; everything that finishes is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arcs import trained_on
from arcs.arc1 import evaluation, problems
from arcs.arc1.evaluation import Answer
from arcs.arc1.problems import Item
from arcs.doctor.offload import warn_unused_gpu
from arcs.escalation import next_budget, undecided
from arcs.evaluate.config import BASE, CONTROL, Condition, EvalConfig, conditions_of
from arcs.evaluate.decoding import FILES, Arm, Stage, decode_arm, fast_of, reference_of
from arcs.evaluate.files import check_adapter, remove_copies
from arcs.evaluate.metrics import EvalMetrics
from arcs.evaluate.prefix import template_prefix
from arcs.evaluate.quality import fixed_texts, logits_of_both, quality
from arcs.gates import Gates, load_gates
from arcs.instrument import Only, settings_sha256
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory
from arcs.sampled import SampledComparison, compare_sampled
from arcs.sampled_arms import summarise_sampled
from arcs.verdicts import Comparison, Results, compare, summarise
from backends.heads import layer_factors
from backends.interface import Completion
from backends.llamacpp import require_installed
from backends.llamacpp.context import describe_prefix
from backends.lora import adapter_sha256
from evals.benchmarks import Benchmark, load_benchmark
from evals.humaneval.execution import Limits
from evals.humaneval.sandbox import IsolationLevel, detect_level
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.disk import require_free
from models.errors import UserError
from models.geometry import read_geometry
from models.gguf.layout import layout_of
from models.store import prepare

EXECUTIONS, ITEMS = "executions.jsonl", "items.jsonl"
RUN_BYTES = 50 << 20
REFERENCE = "f16"
"""What the other quantisations are compared with."""
AnyComparison = Comparison | SampledComparison


@dataclass(frozen=True)
class Prepared:
    """What all conditions share."""

    directory: ModelDirectory
    encoder: ChatEncoder
    benchmark: Benchmark
    items: tuple[Item, ...]
    level: IsolationLevel
    limits: Limits
    gates: Gates
    conditions: tuple[Condition, ...]
    layers: tuple[int, ...]
    """Layers that the sweep of heads touches."""
    prefix: tuple[int, ...]
    """Ids that every prompt begins with and that are computed once; none where not shared."""
    trained_on_test: frozenset[str] = frozenset()
    """Conditions whose adapter was trained on problems that are evaluated."""

    @property
    def problems(self) -> tuple[Item, ...]:
        """The items, each once however many samples are drawn."""
        return tuple(item for item in self.items if not item.prompt.sample)

    @property
    def sampled(self) -> bool:
        """Whether an item has several answers."""
        return len(self.items) > len(self.problems)

    @property
    def item_of(self) -> dict[str, str]:
        """Key of each answer -> its item."""
        return {item.key: item.problem.task_id for item in self.items}


def run_eval(
    config: EvalConfig,
    run: RunDirectory,
    reporter: Reporter,
    *,
    with_quality: bool = True,
    only: Only | None = None,
) -> dict[str, Any]:
    """Run or continue an evaluation in ``run``; returns what stands in its metrics.json.

    ``with_quality``: measure what each quantisation does to the base itself, which no comparison
    of conditions needs; without it ``quality_against_f16`` is empty. ``only``: as part of another
    run, these problems of the benchmark.
    """
    with run.timed("prepare"):
        prepared = prepare_run(config, run, reporter, only)
    arms = tuple(Arm(q, one) for q in config.quantisations for one in prepared.conditions)
    measured: dict[str, Any] = {}
    if with_quality:
        with run.timed("quality of quantisation"):
            measured = _quality(config, run, prepared, reporter)
    done: dict[str, dict[str, Completion]] = {arm.name: {} for arm in arms}
    budgets, settled = list(config.n_predict), False
    while not settled:
        context = _context(config, prepared, budgets[-1])
        stage = Stage(config, run, prepared, reporter, context, tuple(budgets), only)
        for arm in arms:
            with run.timed(f"decode {arm.name} to {budgets[-1]}") as counts:
                decode_arm(stage, arm, done[arm.name], counts)
        table, compared = _judge(config, run, prepared, arms, budgets, done, reporter)
        larger = None if config.escalate is None else next_budget(budgets[-1], config.escalate)
        settled = larger is None or not undecided(compared.values())
        if not settled and larger is not None:
            reporter.say(f"unfinished answers could change a conclusion: on to {larger} tokens")
            budgets.append(larger)
    fast = {arm.name: fast_of(stage, arm, done[arm.name]) for arm in arms}
    metrics = _metrics(config, run, prepared, arms, budgets, table, compared, measured, fast)
    run.write_json(METRICS, metrics)
    remove_copies(run.path / FILES)
    return metrics


def prepare_run(
    config: EvalConfig, run: RunDirectory, reporter: Reporter, only: Only | None = None
) -> Prepared:
    """Check everything that can be before the first decode. Raises UserError for each mistake."""
    require_free(run.path, RUN_BYTES, "the run")
    require_installed()
    warn_unused_gpu(config.gpu_layers, reporter)
    level = detect_level(allow_weak=config.allow_weak_sandbox)
    directory = prepare(config.model, say=reporter.say)
    layout = layout_of(directory, doing="quantised evaluation")
    encoder = ChatEncoder(directory, thinking=config.thinking)
    if config.thinking and not encoder.thinking_switch:
        raise UserError(f"--thinking: {directory.name} has no thinking mode; leave it out")
    if "original" in config.quantisations and directory.gguf is None:
        raise UserError(
            f"--quant original: {directory.name} was not made from a GGUF file; choose f16, "
            "q8_0, q5_k_m or q4_k_m"
        )
    benchmark = load_benchmark(config.benchmark)
    chosen, limits = problems.choose(benchmark, config.limit), Limits()
    if only is not None:
        chosen = tuple(one for one in chosen if one.task_id in only.items)
    conditions = conditions_of(config)
    for condition in conditions:
        if condition.adapter is not None:
            check_adapter(condition.adapter, directory, config.adapter_mode)
    scales = {head: 0.0 for one in conditions for head in (one.scales or {})}
    prepared = Prepared(
        directory=directory,
        encoder=encoder,
        benchmark=benchmark,
        items=problems.in_samples(
            [problems.encode(encoder, one, config.prompt_style) for one in chosen],
            config.samples,
        ),
        level=level,
        limits=limits,
        gates=load_gates(),
        conditions=conditions,
        layers=tuple(sorted(layer_factors(scales, layout.heads))),
        prefix=template_prefix(encoder, config.prompt_style) if config.shares_prefix else (),
    )
    largest = config.escalate or config.n_predict[-1]
    context, trained = _context(config, prepared, largest), read_geometry(directory.path)
    if context > trained.context_length:
        raise UserError(
            f"{largest} tokens need a context of {context}, and {directory.name} has "
            f"{trained.context_length}: lower --n-predict or --escalate"
        )
    if "evaluation" not in run.manifest():  # begun now
        problems.require_solvable(benchmark, chosen, level, limits, reporter)
    run.extend_manifest(**_describe(config, prepared))
    return _apart(config, run, prepared, reporter)


def _apart(
    config: EvalConfig, run: RunDirectory, prepared: Prepared, reporter: Reporter
) -> Prepared:
    """Raise UserError where an adapter was trained on evaluated problems, unless allowed."""
    asked = trained_on.wordings([item.problem for item in prepared.problems])
    dataset = str(run.manifest()["evaluation"]["dataset"])
    entries, allowed = {}, config.allow_overlap
    for one in prepared.conditions:
        if one.adapter is not None:
            found = trained_on.recorded_overlap(one.adapter, dataset, asked)
            what = f"--adapter {one.adapter}"
            entries[one.name] = trained_on.examine(
                what, found, asked, allowed=allowed, say=reporter.say
            )
    run.extend_manifest(overlap=entries)
    seen = frozenset(name for name, entry in entries.items() if entry["shared"])
    return replace(prepared, trained_on_test=seen)


def _context(config: EvalConfig, prepared: Prepared, budget: int) -> int:
    return problems.context_for(prepared.encoder, prepared.benchmark, config.prompt_style, budget)


def _describe(config: EvalConfig, prepared: Prepared) -> dict[str, Any]:
    directory = prepared.directory
    adapters = [one for one in prepared.conditions if one.adapter is not None]
    return {
        "model": {
            "name": directory.name,
            "family": directory.family,
            "source": directory.source,
            "fingerprint": directory.fingerprint,
            "gguf_sha256": directory.gguf_sha256,
        },
        "adapters": {
            one.name: {"sha256": adapter_sha256(one.adapter), "mode": config.adapter_mode}
            for one in adapters
            if one.adapter is not None
        },
        "chat": prepared.encoder.describe(),
        "evaluation": {
            **prepared.benchmark.describe(config.prompt_style),
            "prompts_sha256": problems.prompts_sha256(prepared.problems),
            "items": len(prepared.problems),
        },
        "sandbox": {
            "level": prepared.level.name,
            "description": prepared.level.description(),
            "limits": prepared.limits.description(),
        },
        "gates": prepared.gates.to_json(),
        "shared_prefix": describe_prefix(prepared.prefix) if prepared.prefix else None,
    }


def _quality(
    config: EvalConfig, run: RunDirectory, prepared: Prepared, reporter: Reporter
) -> dict[str, Any]:
    """What each quantisation does to the base itself; kept, so measured once a run."""
    from backends.llamacpp.quantise import evaluation_gguf
    from models.store import cache_root

    name = "quality.json"
    if (run.path / name).exists():
        return run.read_json(name)
    texts = fixed_texts(prepared.encoder)
    cache = cache_root() / "gguf"

    def gguf(kind: str) -> Path:
        return evaluation_gguf(prepared.directory, kind, cache, say=reporter.say)

    def measure(kind: str) -> dict[str, Any]:
        reporter.say(
            f"{kind} against {REFERENCE}: logits of the base on {sum(map(len, texts)):,} tokens of "
            "fixed text"
        )
        pairs = logits_of_both(
            gguf(REFERENCE), gguf(kind), texts,
            threads=config.threads, gpu_layers=config.gpu_layers,
        )  # fmt: skip
        return quality(pairs).to_json()

    found: dict[str, Any] = {
        kind: measure(kind) for kind in config.quantisations if kind != REFERENCE
    }
    run.write_json(name, found)
    return found


def _judge(
    config: EvalConfig,
    run: RunDirectory,
    prepared: Prepared,
    arms: Sequence[Arm],
    budgets: Sequence[int],
    done: Mapping[str, Mapping[str, Completion]],
    reporter: Reporter,
) -> tuple[dict[str, Results], dict[str, AnyComparison]]:
    """Run the code and compare every edit with what it is an edit of."""
    settings = config.model_copy(update={"n_predict": tuple(budgets)})
    given: list[Answer] = []
    for arm in arms:
        given += evaluation.answers(
            arm.name, done[arm.name], prepared.items, prepared.encoder, settings,
            stops=config.stops,
        )  # fmt: skip
    with run.timed(f"execute to {budgets[-1]}") as counts:
        store = run.json_lines(EXECUTIONS)
        before = len(store.records)
        executions = evaluation.execute(
            given, store, prepared.level, prepared.limits, os.cpu_count() or 1, reporter
        )
        counts["programs"] = len(store.records) - before
    table: dict[str, Results] = dict(evaluation.results(given, executions))
    evaluation.write_items(run.path / ITEMS, evaluation.item_records(given, executions, table))
    manifest = run.manifest()
    stages = budgets[len(config.n_predict) - 1 :]

    def settings_of(arm: Arm) -> str:
        # a stage in which nothing was left to decode has no entry
        found = [manifest.get(f"engine.{arm.name}.{budget}") for budget in stages]
        return settings_sha256(arm.name, [one for one in found if one is not None])

    compared = {}
    for arm in arms:
        if arm.condition.name in (BASE, CONTROL):
            continue
        reference = Arm(arm.quantisation, reference_of(prepared.conditions, arm.condition))
        compared[arm.name] = compare_arms(
            table[reference.name],
            table[arm.name],
            prepared,
            settings=(settings_of(reference), settings_of(arm)),
            trained_on_test=arm.condition.name in prepared.trained_on_test,
        )
    return table, compared


def compare_arms(
    base: Results,
    edited: Results,
    prepared: Prepared,
    *,
    settings: tuple[str, str],
    trained_on_test: bool,
) -> AnyComparison:
    """By McNemar's test for one answer an item, by item means for several."""
    one, other = settings
    if not prepared.sampled:
        return compare(
            base, edited, prepared.gates,
            base_settings=one, edited_settings=other, trained_on_test=trained_on_test,
        )  # fmt: skip
    return compare_sampled(
        base, edited, prepared.item_of, prepared.gates,
        base_settings=one, edited_settings=other, trained_on_test=trained_on_test,
    )  # fmt: skip


def _summary(results: Results, prepared: Prepared) -> dict[int, dict[str, Any]]:
    if prepared.sampled:
        return summarise_sampled(results, prepared.item_of, prepared.gates)
    return {n: one.to_json() for n, one in summarise(results, prepared.gates).items()}


def _metrics(
    config: EvalConfig,
    run: RunDirectory,
    prepared: Prepared,
    arms: Sequence[Arm],
    budgets: Sequence[int],
    table: Mapping[str, Results],
    compared: Mapping[str, AnyComparison],
    measured: Mapping[str, Any],
    fast: Mapping[str, Any],
) -> dict[str, Any]:
    manifest = run.manifest()
    found: dict[str, Any] = {kind: {} for kind in config.quantisations}
    for arm in arms:
        summary = _summary(table[arm.name], prepared)
        comparison = compared.get(arm.name)
        made = manifest[f"engine.{arm.name}.{config.n_predict[-1]}"]
        found[arm.quantisation][arm.condition.name] = {
            "budgets": {str(n): one for n, one in summary.items()},
            "against": arm.condition.against if comparison else None,
            "comparison": comparison.to_json() if comparison else None,
            "tempering": made.get("tempering"),
            "merge": manifest.get(f"merge.{arm.name}"),
            "fast": fast[arm.name],
        }
    document = {
        "model": manifest["model"],
        "n_items": len(prepared.problems),
        "n_predict": list(budgets),
        "escalated": list(budgets[len(config.n_predict) :]),
        "quality_against_f16": dict(measured),
        "quantisations": found,
        "config": config.model_dump(mode="json"),
        "made_with": {k: v for k, v in manifest.items() if k not in ("config", "command", "arc")},
    }
    return EvalMetrics.model_validate(document).model_dump(mode="json")
