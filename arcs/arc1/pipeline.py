"""The phases of Arc 1, each of which picks up where an earlier process was stopped.

prepare -> train (SFT, DPO, or both) -> export -> decode (base, trained) -> execute -> compare
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arcs import provenance, trained_on
from arcs.arc1 import evaluation, problems
from arcs.arc1.config import Arc1Config
from arcs.arc1.metrics import Arc1Metrics, Decoding, build
from arcs.arc1.training import (
    Trained,
    Trainer,
    reference_is_stored,
    train_or_take,
    trained_pairs,
    trained_records,
)
from arcs.gates import Gates, load_gates
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory, canonical_json
from arcs.training_data import (
    Preference,
    Record,
    built_in_paths,
    built_in_preference_paths,
    data_sha256,
    load,
    load_preferences,
    preferences_sha256,
    require_apart,
)
from arcs.verdicts import compare
from backends import choose_backend, require_quantised_bases
from backends.interface import Completion
from backends.llamacpp import require_installed
from backends.lora import adapter_sha256, check_weights, load_adapter
from backends.memory import model_size
from backends.verification import verify
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

ITEMS = "items.jsonl"
EXECUTIONS = "executions.jsonl"
EVALUATION = "quantised evaluation of a trained adapter"
RUN_BYTES = 256 << 20
"""Two checkpoints and the adapter of the largest default LoRA here, and the records."""


@dataclass(frozen=True)
class Prepared:
    """What is decided before anything is trained or decoded."""

    directory: ModelDirectory
    backend: str
    encoder: ChatEncoder
    benchmark: Benchmark
    items: tuple[problems.Item, ...]
    records: tuple[Record, ...]
    pairs: tuple[Preference, ...]
    context: int
    quantisation: str
    level: IsolationLevel
    limits: Limits
    gates: Gates
    shared: tuple[trained_on.Shared, ...] = ()
    """Evaluated problems that were trained on."""


def run_arc1(config: Arc1Config, run: RunDirectory, reporter: Reporter) -> Arc1Metrics:
    """Run or continue Arc 1 in ``run``; returns what stands in its metrics.json."""
    with run.timed("prepare"):
        prepared = prepare_run(config, run, reporter)
    shared = {_dataset(run): [one.to_json() for one in prepared.shared]} if prepared.shared else {}
    trainer = Trainer(
        config, run, prepared.directory, prepared.backend, prepared.encoder, reporter, shared
    )
    trained = train_or_take(trainer, prepared.records, prepared.pairs)
    run.extend_manifest(adapter={"sha256": adapter_sha256(trained.adapter)})
    with run.timed("export"):
        gguf, adapter_gguf = export(config, run, prepared, trained.adapter, reporter)
    for arm, its_adapter in zip(evaluation.ARMS, (None, adapter_gguf), strict=True):
        with run.timed(f"decode {arm}") as counts:
            counts["tokens"] = decode_arm(config, run, prepared, arm, gguf, its_adapter, reporter)
    return judge(config, run, prepared, trained, reporter)


def prepare_run(config: Arc1Config, run: RunDirectory, reporter: Reporter) -> Prepared:
    """Find or make everything the run needs, and fail before any long work where it cannot go on.

    Raises UserError for each mistake a user can make here.
    """
    require_free(run.path, RUN_BYTES, "the run (checkpoints, adapter, records)")
    backend = choose_backend(config.backend)
    if config.base_bits is not None:
        require_quantised_bases(backend)
    require_installed()
    level = detect_level(allow_weak=config.allow_weak_sandbox)
    records = load(config.data or built_in_paths()) if "sft" in config.trains else ()
    pairs: tuple[Preference, ...] = ()
    if "dpo" in config.trains:
        pairs = load_preferences(config.pairs or built_in_preference_paths())
    directory = prepare(config.model, say=reporter.say)
    encoder = ChatEncoder(directory, thinking=config.thinking)
    if config.thinking and not encoder.thinking_switch:
        raise UserError(f"--thinking: {directory.name} has no thinking mode; leave it out")
    layout_of(directory, doing=EVALUATION)
    benchmark = load_benchmark(config.benchmark)
    chosen, limits = problems.choose(benchmark, config.limit), Limits()
    context = problems.context_for(encoder, benchmark, config.prompt_style, config.n_predict[-1])
    _require_context(directory, context, config)
    _require_reference(config, run, directory)
    require_apart(records, pairs)
    verification = _verification(run, directory, reporter)
    prepared = Prepared(
        directory=directory,
        backend=backend,
        encoder=encoder,
        benchmark=benchmark,
        items=tuple(problems.encode(encoder, one, config.prompt_style) for one in chosen),
        records=records,
        pairs=pairs,
        context=context,
        quantisation=_quantisation(config, directory),
        level=level,
        limits=limits,
        gates=load_gates(),
    )
    if "evaluation" not in run.manifest():  # begun now
        problems.require_solvable(benchmark, chosen, level, limits, reporter)
    run.extend_manifest(**_describe(config, prepared, verification))
    return _apart(config, run, prepared, reporter)


def _dataset(run: RunDirectory) -> str:
    return str(run.manifest()["evaluation"]["dataset"])


def _apart(
    config: Arc1Config, run: RunDirectory, prepared: Prepared, reporter: Reporter
) -> Prepared:
    """Raise UserError where evaluated problems are trained on, unless that is allowed.

    Asked before the first step of the data, and of a given adapter by what it carries.
    """
    asked = trained_on.wordings([item.problem for item in prepared.items])
    found: list[trained_on.Shared] | None
    if config.adapter is not None:
        what = f"--adapter {config.adapter}"
        found = trained_on.recorded_overlap(config.adapter, _dataset(run), asked)
    else:
        what, records = "the training data", trained_records(config, prepared.records)
        rows: list[trained_on.Trained] = [*records, *trained_pairs(config, prepared.pairs)]
        found = trained_on.shared_prompts(rows, asked)
    allowed = config.allow_overlap
    entry = trained_on.examine(what, found, asked, allowed=allowed, say=reporter.say)
    run.extend_manifest(overlap=entry)
    return replace(prepared, shared=tuple(found or ()))


def _require_reference(config: Arc1Config, run: RunDirectory, directory: ModelDirectory) -> None:
    """Raise UserError where a reference adapter does not fit; not asked once it has been used."""
    given = config.dpo_reference
    if "dpo" not in config.trains or given in ("base", "sft") or reference_is_stored(run):
        return
    lora, weights = load_adapter(Path(given), directory)
    try:
        check_weights(lora, weights, model_size(directory).linear_modules)
    except UserError as error:
        raise UserError(f"--reference {given}: {error}") from None


def _require_context(directory: ModelDirectory, context: int, config: Arc1Config) -> None:
    longest = read_geometry(directory.path).context_length
    if context > longest:
        raise UserError(
            f"--n-predict {config.n_predict[-1]}: with the longest prompt it needs a context of "
            f"{context} tokens, and {directory.name} has {longest}; lower --n-predict"
        )


def _verification(run: RunDirectory, directory: ModelDirectory, reporter: Reporter) -> str:
    """What comparing the engines gave when the run was begun.

    Kept, not asked again: "too large for free memory" is true of a moment, not of the run.
    """
    known = run.manifest().get("model", {}).get("verification")
    return str(known) if known is not None else verify(directory, say=reporter.say)


def _quantisation(config: Arc1Config, directory: ModelDirectory) -> str:
    has_original = directory.gguf is not None
    if config.quantisation == "auto":
        return "original" if has_original else "q8_0"
    if config.quantisation == "original" and not has_original:
        raise UserError(
            f"--quantisation original: {directory.name} was not made from a GGUF file; choose "
            "auto, f16, q8_0, q5_k_m or q4_k_m"
        )
    return config.quantisation


def _describe(config: Arc1Config, prepared: Prepared, verification: str) -> dict[str, Any]:
    directory = prepared.directory
    pairs = {"sha256": preferences_sha256(prepared.pairs), "records": len(prepared.pairs)}
    return {
        **({"pairs": pairs} if prepared.pairs else {}),
        "model": {
            "name": directory.name,
            "family": directory.family,
            "source": directory.source,
            "fingerprint": directory.fingerprint,
            "gguf_sha256": directory.gguf_sha256,
            "verification": verification,
        },
        "training_backend": prepared.backend,
        "chat": prepared.encoder.describe(),
        "data": {"sha256": data_sha256(prepared.records), "records": len(prepared.records)},
        "evaluation": {
            **prepared.benchmark.describe(config.prompt_style),
            "prompts_sha256": problems.prompts_sha256(prepared.items),
            "items": len(prepared.items),
            "context": prepared.context,
            "quantisation": prepared.quantisation,
        },
        "sandbox": {
            "level": prepared.level.name,
            "description": prepared.level.description(),
            "limits": prepared.limits.description(),
        },
        "gates": prepared.gates.to_json(),
    }


def export(
    config: Arc1Config, run: RunDirectory, prepared: Prepared, adapter: Path, reporter: Reporter
) -> tuple[Path, Path]:
    """Make the two files llama.cpp reads: the model's GGUF and the adapter's."""
    from backends.llamacpp.adapter import convert_adapter
    from backends.llamacpp.quantise import evaluation_gguf
    from models.store import cache_root

    gguf = evaluation_gguf(
        prepared.directory, prepared.quantisation, cache_root() / "gguf", say=reporter.say
    )
    adapter_gguf = run.path / "adapter.gguf"
    if not adapter_gguf.exists():
        convert_adapter(adapter, prepared.directory, adapter_gguf)
    return gguf, adapter_gguf


def decode_arm(
    config: Arc1Config,
    run: RunDirectory,
    prepared: Prepared,
    arm: str,
    gguf: Path,
    adapter: Path | None,
    reporter: Reporter,
) -> int:
    """Decode one arm's missing items; returns the ids generated now."""
    from backends.llamacpp.model import open_gguf

    store = evaluation.store_of(run, arm)
    if len(evaluation.completions(store, prepared.items, config)) == len(prepared.items):
        return 0
    with open_gguf(
        gguf,
        adapter=adapter,
        context=prepared.context,
        width=config.width,
        kv_dtype=config.kv_dtype,
        threads=config.threads,
        gpu_layers=config.gpu_layers,
    ) as model:
        run.extend_manifest(**{f"engine_{arm}": model.describe()})
        return evaluation.decode(
            model, prepared.encoder, prepared.items, config, store, f"decode {arm}", reporter
        )


def judge(
    config: Arc1Config,
    run: RunDirectory,
    prepared: Prepared,
    trained: Trained,
    reporter: Reporter,
) -> Arc1Metrics:
    """Run the code, compare the arms, write items.jsonl and metrics.json."""
    given = _all_answers(config, run, prepared)
    with run.timed("execute") as counts:
        store = run.json_lines(EXECUTIONS)
        before = len(store.records)
        executions = evaluation.execute(
            given, store, prepared.level, prepared.limits, os.cpu_count() or 1, reporter
        )
        counts["programs"] = len(store.records) - before
    table = evaluation.results(given, executions)
    with run.timed("compare"):
        comparison = compare(
            table["base"],
            table["trained"],
            prepared.gates,
            base_settings=settings_sha256(run, "base"),
            edited_settings=settings_sha256(run, "trained"),
            trained_on_test=bool(prepared.shared),
        )
        evaluation.write_items(run.path / ITEMS, evaluation.item_records(given, executions, table))
        decoding = {
            arm: Decoding.of(_completions(config, run, prepared, arm).values())
            for arm in evaluation.ARMS
        }
        metrics = build(config, run.manifest(), comparison, trained.sft, decoding, trained.dpo)
        run.write_json(METRICS, metrics.model_dump(mode="json"))
    return metrics


def _all_answers(
    config: Arc1Config, run: RunDirectory, prepared: Prepared
) -> Sequence[evaluation.Answer]:
    given: list[evaluation.Answer] = []
    for arm in evaluation.ARMS:
        done = _completions(config, run, prepared, arm)
        given.extend(evaluation.answers(arm, done, prepared.items, prepared.encoder, config))
    return given


def _completions(
    config: Arc1Config, run: RunDirectory, prepared: Prepared, arm: str
) -> dict[str, Completion]:
    return evaluation.completions(evaluation.store_of(run, arm), prepared.items, config)


def settings_sha256(run: RunDirectory, arm: str) -> str:
    """Hash of everything about an arm's evaluation that must be the same in the other arm.

    That is all of it except the edit itself.
    """
    manifest = run.manifest()
    engine = {k: v for k, v in manifest[f"engine_{arm}"].items() if not k.startswith("adapter")}
    shared = {name: manifest[name] for name in ("evaluation", "chat", "sandbox")}
    text = canonical_json({"engine": engine, **shared})
    return hashlib.sha256(text.encode()).hexdigest()


def first_manifest(config: Arc1Config, command: Sequence[str]) -> dict[str, Any]:
    """What is known before anything is opened."""
    return provenance.first_manifest("arc1", config.model_dump(mode="json"), command)
