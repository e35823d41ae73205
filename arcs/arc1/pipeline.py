"""The phases of Arc 1, each of which picks up where an earlier process was stopped.

prepare -> train (SFT, DPO, or both; the controls) -> export -> decode (base, SFT, trained)
        -> execute -> compare -> evaluations -> further seeds

With --escalate decode, execute and compare are done again at twice the budget while it could
matter. Evaluations and further seeds are runs of their own, in folders of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from arcs import provenance, trained_on
from arcs.arc1 import evaluation, problems
from arcs.arc1.config import Arc1Config
from arcs.arc1.controls import held_to_controls, train_controls
from arcs.arc1.evaluations import Asking, arms_of, evaluate_arms, require_evaluable
from arcs.arc1.metrics import Arc1Metrics, Decoding, Found, build
from arcs.arc1.seeds import repeat
from arcs.arc1.stages import Judged, Stage, decode_arm, judge
from arcs.arc1.thinking import compression, think_length
from arcs.arc1.training import (
    Trained,
    Trainer,
    records_of,
    reference_is_stored,
    train_or_take,
    trained_pairs,
    trained_records,
)
from arcs.doctor.offload import warn_unused_gpu
from arcs.gates import Gates, load_gates
from arcs.held_out import examine_held_out
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory
from arcs.training_data import (
    Preference,
    Record,
    built_in_preference_paths,
    data_sha256,
    load_preferences,
    preferences_sha256,
    require_apart,
)
from backends import choose_backend, require_processes, require_quantised_bases
from backends.interface import Completion
from backends.llamacpp import require_installed
from backends.lora import adapter_sha256, check_weights, load_adapter
from backends.memory import model_size
from backends.verification import verify
from evals.benchmarks import Benchmark, load_benchmark
from evals.humaneval.execution import Limits
from evals.humaneval.outcomes import Outcome
from evals.humaneval.sandbox import IsolationLevel, detect_level
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.disk import require_free
from models.errors import UserError
from models.geometry import read_geometry
from models.gguf.layout import layout_of
from models.store import prepare

ITEMS = "items.jsonl"
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
    elsewhere: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Items of other evaluation sets that were trained on, by set."""


def run_arc1(
    config: Arc1Config,
    run: RunDirectory,
    reporter: Reporter,
    shared: Path | None = None,
    asking: Asking | None = None,
) -> Arc1Metrics:
    """Run or continue Arc 1 in ``run``; returns what stands in its metrics.json.

    ``shared``: a run of the same settings but the seed, whose measurements of the base hold here.
    ``asking``: how the judge is asked.
    """
    with run.timed("prepare"):
        prepared = prepare_run(config, run, reporter, asking)
    overlap = {name: list(found) for name, found in prepared.elsewhere.items()}
    if prepared.shared:
        own = [one.to_json() for one in prepared.shared]
        overlap[_dataset(run)] = [*own, *overlap.get(_dataset(run), [])]
    trainer = Trainer(
        config, run, prepared.directory, prepared.backend, prepared.encoder, reporter, overlap
    )
    trained = train_or_take(trainer, prepared.records, prepared.pairs)
    run.extend_manifest(adapter={"sha256": adapter_sha256(trained.adapter)})
    if trained.sft_adapter is not None:
        run.extend_manifest(adapter_sft={"sha256": adapter_sha256(trained.sft_adapter)})
    controls = train_controls(trainer)
    with run.timed("export"):
        gguf, adapters = export(run, prepared, trained, reporter)
    done: dict[str, dict[str, Completion]] = {arm: {} for arm in adapters}
    stage = Stage.first(config)
    while True:
        for arm, its_adapter in adapters.items():
            with run.timed(f"decode {arm}{stage.suffix}") as counts:
                counts["tokens"] = decode_arm(
                    stage, run, prepared, arm, gguf, its_adapter, done[arm], reporter
                )
        judged = judge(stage, run, prepared, done, reporter)
        larger = stage.next(judged.all_comparisons)
        if larger is None:
            break
        reporter.say(
            f"unfinished answers could change the conclusion: on to {larger.budgets[-1]} tokens"
        )
        stage = larger
    arms = arms_of(trained, controls)
    measured = evaluate_arms(config, run, prepared, arms, reporter, shared, asking)
    with run.timed("conclude"):
        found = Found(
            comparison=judged.comparison,
            others=judged.others,
            decoding={arm: Decoding.of(one.values()) for arm, one in done.items()},
            thinking=_thinking(config, prepared, judged, done),
            evaluations=measured,
            controls=held_to_controls(measured, controls),
            seeds=repeat(config, run, reporter, partial(run_arc1, asking=asking)),
        )
        return conclude(config, run, judged, trained, found)


def prepare_run(
    config: Arc1Config, run: RunDirectory, reporter: Reporter, asking: Asking | None = None
) -> Prepared:
    """Find or make everything the run needs, and fail before any long work where it cannot go on.

    Raises UserError for each mistake a user can make here.
    """
    require_free(run.path, RUN_BYTES, "the run (checkpoints, adapter, records)")
    backend = training_engine(config)
    require_installed()
    warn_unused_gpu(config.gpu_layers, reporter)
    level = detect_level(allow_weak=config.allow_weak_sandbox)
    records = records_of(config)
    pairs: tuple[Preference, ...] = ()
    if "dpo" in config.trains:
        pairs = load_preferences(config.pairs or built_in_preference_paths())
    directory = prepare(config.model, say=reporter.say)
    encoder = ChatEncoder(directory, thinking=config.thinking)
    if config.thinking and not encoder.thinking_switch:
        raise UserError(f"--thinking: {directory.name} has no thinking mode; leave it out")
    if encoder.template is None:
        _require_plain(config, directory)
    layout_of(directory, doing=EVALUATION)
    benchmark = load_benchmark(config.benchmark)
    chosen, limits = problems.choose(benchmark, config.limit), Limits()
    largest = config.escalate or config.n_predict[-1]
    _require_context(directory, _context(config, encoder, benchmark, largest), config)
    _require_reference(config, run, directory)
    if config.adapter is not None:
        load_adapter(config.adapter, directory)  # before engines are compared, which takes minutes
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
        context=_context(config, encoder, benchmark, config.n_predict[-1]),
        quantisation=_quantisation(config, directory),
        level=level,
        limits=limits,
        gates=load_gates(),
    )
    require_evaluable(config, run, prepared, reporter, asking)
    if "evaluation" not in run.manifest():  # begun now
        problems.require_solvable(benchmark, chosen, level, limits, reporter)
    run.extend_manifest(**_describe(config, prepared, verification))
    return _apart(config, run, prepared, reporter)


def training_engine(config: Arc1Config) -> str:
    """The engine that trains. Raises UserError where it cannot do so as the settings say."""
    backend = choose_backend(config.backend)
    if config.base_bits is not None:
        require_quantised_bases(backend)
    require_processes(backend, config.processes)
    return backend


def _require_plain(config: Arc1Config, directory: ModelDirectory) -> None:
    """Of a model without a chat template: raise UserError for whatever needs chats, in one go."""
    needed = {
        "--adapter PATH": not config.trains,  # records are trained on as chats
        "--prompt-style raw": config.prompt_style == "raw",
        "--evaluations none": not config.evaluations,
    }
    missing = [flag for flag, given in needed.items() if not given]
    if missing:
        raise UserError(
            f"--model {directory.name}: it has no chat template, so it can neither be trained on "
            f"chats nor asked in them; for plain prompts give {', '.join(missing)}"
        )


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
    rows: list[trained_on.Trained] = []
    if config.adapter is not None:
        what = f"--adapter {config.adapter}"
        found = trained_on.recorded_overlap(config.adapter, _dataset(run), asked)
    else:
        what, records = "the training data", trained_records(config, prepared.records)
        rows = [*records, *trained_pairs(config, prepared.pairs)]
        found = trained_on.shared_prompts(rows, asked)
    allowed = config.allow_overlap
    entry = trained_on.examine(what, found, asked, allowed=allowed, say=reporter.say)
    run.extend_manifest(overlap=entry)
    elsewhere = {}
    if rows:
        known = {_dataset(run): {one.item for one in found or ()}}
        elsewhere = examine_held_out(rows, known=known, allowed=allowed, say=reporter.say)
    if elsewhere:
        run.extend_manifest(overlap_elsewhere=elsewhere)
    return replace(prepared, shared=tuple(found or ()), elsewhere=elsewhere)


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


def _context(config: Arc1Config, encoder: ChatEncoder, benchmark: Benchmark, largest: int) -> int:
    return problems.context_for(encoder, benchmark, config.prompt_style, largest)


def _require_context(directory: ModelDirectory, context: int, config: Arc1Config) -> None:
    longest = read_geometry(directory.path).context_length
    if context > longest:
        flag = "n-predict" if config.escalate is None else "escalate"
        tokens = config.escalate or config.n_predict[-1]
        raise UserError(
            f"--{flag} {tokens}: with the longest prompt it needs a context of "
            f"{context} tokens, and {directory.name} has {longest}; lower --{flag}"
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
    run: RunDirectory, prepared: Prepared, trained: Trained, reporter: Reporter
) -> tuple[Path, dict[str, Path | None]]:
    """Make what llama.cpp reads: the model's GGUF, and the adapter's of each arm."""
    from backends.llamacpp.adapter import convert_adapter
    from backends.llamacpp.quantise import evaluation_gguf
    from models.store import cache_root

    gguf = evaluation_gguf(
        prepared.directory, prepared.quantisation, cache_root() / "gguf", say=reporter.say
    )
    wanted = {evaluation.TRAINED: (trained.adapter, run.path / "adapter.gguf")}
    if trained.sft_adapter is not None:
        sft = {evaluation.SFT: (trained.sft_adapter, run.path / "adapter-sft.gguf")}
        wanted = {**sft, **wanted}
    for adapter, file in wanted.values():
        if not file.exists():
            convert_adapter(adapter, prepared.directory, file)
    return gguf, {evaluation.BASE: None, **{arm: file for arm, (_, file) in wanted.items()}}


def conclude(
    config: Arc1Config,
    run: RunDirectory,
    judged: Judged,
    trained: Trained,
    found: Found,
) -> Arc1Metrics:
    """Write items.jsonl and metrics.json."""
    records = evaluation.item_records(judged.answers, judged.executions, judged.table)
    evaluation.write_items(run.path / ITEMS, records)
    metrics = build(config, run.manifest(), found, trained.sft, trained.dpo)
    run.write_json(METRICS, metrics.model_dump(mode="json"))
    return metrics


def _thinking(
    config: Arc1Config,
    prepared: Prepared,
    judged: Judged,
    done: Mapping[str, Mapping[str, Completion]],
) -> dict[str, Any]:
    if not config.thinking:
        return {}
    opened = {item.key: item.think_open for item in prepared.items}
    lengths = {
        arm: {key: think_length(prepared.encoder, one.ids, opened[key]) for key, one in own.items()}
        for arm, own in done.items()
    }
    primary = {arm: rows[max(rows)] for arm, rows in judged.table.items()}
    passed = {
        arm: {row.item_id: row.outcome is Outcome.PASSED for row in rows}
        for arm, rows in primary.items()
    }
    return compression(lengths, passed, prepared.gates.level)


def first_manifest(config: Arc1Config, command: Sequence[str]) -> dict[str, Any]:
    """What is known before anything is opened."""
    return provenance.first_manifest("arc1", config.model_dump(mode="json"), command)
