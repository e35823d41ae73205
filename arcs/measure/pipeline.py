"""Measure the base and its edits on one engine; everything that finishes is kept.

prepare -> base and settings of heads (one open model) -> each adapter (a fresh one) -> compare
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arcs import provenance, trained_on
from arcs.evaluate.config import BASE, Condition
from arcs.gates import Gates, load_gates
from arcs.instrument import Only
from arcs.judging.opening import JudgeOptions, cache_for, check_judge
from arcs.judging.validity import svr_validity
from arcs.labels import parse_judge
from arcs.measure.chef import Chef
from arcs.measure.config import (
    CHEF,
    DELIVERY,
    FREE,
    JUDGED,
    LEXICAL,
    MCAS,
    METER,
    N_PREDICT,
    SHORT_ANSWERS,
    MeasureConfig,
    conditions_of,
)
from arcs.measure.delivery import Delivery
from arcs.measure.instrument import Instrument, Record
from arcs.measure.judged import JudgedRecords, JudgeSettings, judge_all
from arcs.measure.mcas import Mcas
from arcs.measure.meter import Meter
from arcs.measure.recovery import Recovery
from arcs.measure.short_answers import ShortAnswers
from arcs.progress import Reporter
from arcs.runs import METRICS, JsonLines, RunDirectory
from backends import choose_backend, free_memory, open_backend
from backends.heads import layer_factors
from backends.interface import LanguageModel
from backends.lora import adapter_sha256, check_weights, load_adapter
from backends.memory import ITEM_BYTES, model_size
from backends.verification import verify
from evals.humaneval.sandbox.detect import detect_level
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.disk import require_free
from models.errors import UserError
from models.geometry import read_geometry
from models.store import prepare

RUN_BYTES = 20 << 20
EDIT = frozenset({"trainable_share"})
"""What an edit changes of an engine's description."""


@dataclass(frozen=True)
class Prepared:
    """What all conditions share."""

    directory: ModelDirectory
    backend: str
    instrument: Instrument
    conditions: tuple[Condition, ...]
    gates: Gates
    trained_on_test: frozenset[str] = frozenset()
    """Conditions whose adapter was trained on items that are measured."""
    only: Only | None = None
    """What another run asks of the engine; None: it is no part of one."""


@dataclass(frozen=True)
class Part:
    """What another run goes on with: its instrument on other items."""

    instrument: Callable[[ChatEncoder], Instrument]
    only: Only


def run_measure(
    config: MeasureConfig,
    run: RunDirectory,
    reporter: Reporter,
    asking: JudgeSettings | None = None,
    part: Part | None = None,
) -> dict[str, Any]:
    """Run or continue a measurement in ``run``; returns what stands in its metrics.json.

    ``asking``: how the judge of an instrument that needs one is asked. ``part``: what another run
    goes on with here, in place of the set's own items.
    """
    settings = asking or JudgeSettings(config.judge or LEXICAL, JudgeOptions())
    with run.timed("prepare"):
        if config.instrument in JUDGED:
            source = parse_judge(settings.judge)
            check_judge(source, reporter, settings.options)
            cache_for(source, settings.cache)  # a file that cannot be used is said now
        prepared = prepare_run(config, run, reporter, part)
    found: dict[str, Sequence[Record]] = {}
    groups = [[one for one in prepared.conditions if one.adapter is None]]
    groups += [[one] for one in prepared.conditions if one.adapter is not None]
    for group in groups:
        found |= _measure_group(config, run, prepared, group, reporter)
    judged = None
    if isinstance(prepared.instrument, Chef | Mcas | Delivery):
        slugs = {one.name: one.slug for one in prepared.conditions}
        instrument, gates = prepared.instrument, prepared.gates
        judged = judge_all(instrument, found, slugs, settings, gates, run, reporter)
        failing = frozenset(judged.validity.failing(instrument.asks))
        prepared = replace(prepared, instrument=replace(instrument, failing=failing))
        found = dict(judged.records)
    metrics = _metrics(config, run, prepared, found, judged)
    run.write_json(METRICS, metrics)
    return metrics


def prepare_run(
    config: MeasureConfig, run: RunDirectory, reporter: Reporter, part: Part | None = None
) -> Prepared:
    """Check everything that can be before a model is opened. Raises UserError for each mistake."""
    require_free(run.path, RUN_BYTES, "the run")
    backend = choose_backend(config.backend)
    conditions = conditions_of(config)
    directory = prepare(config.model, say=reporter.say)
    heads = {
        one.layer: (one.n_heads, one.head_dim)
        for one in read_geometry(directory.path).layers
        if one.has_o_proj
    }
    for condition in conditions:
        layer_factors(condition.scales or {}, heads)
        if condition.adapter is not None:
            _check_adapter(condition.adapter, directory)
    encoder = ChatEncoder(directory)
    instrument = instrument_of(config, encoder) if part is None else part.instrument(encoder)
    # kept, not asked again: "too large for free memory" is true of a moment, not of the run
    known = run.manifest().get("model", {}).get("verification")
    verification = str(known) if known is not None else verify(directory, say=reporter.say)
    only = None if part is None else part.only
    prepared = Prepared(directory, backend, instrument, conditions, load_gates(), only=only)
    run.extend_manifest(
        model={
            "name": directory.name,
            "family": directory.family,
            "source": directory.source,
            "fingerprint": directory.fingerprint,
            "gguf_sha256": directory.gguf_sha256,
            "verification": verification,
        },
        backend=backend,
        adapters={
            one.name: {"sha256": adapter_sha256(one.adapter)}
            for one in conditions
            if one.adapter is not None
        },
        chat=encoder.describe(),
        measurement=instrument.describe(),
        gates=prepared.gates.to_json(),
    )
    return _apart(config, run, prepared, reporter)


def instrument_of(config: MeasureConfig, encoder: ChatEncoder) -> Instrument:
    """What is measured. Raises UserError where that cannot be done here."""
    if config.instrument == METER:
        return Meter.of(encoder, config.axes, config.limit)
    if config.instrument == SHORT_ANSWERS:
        return ShortAnswers.of(encoder, (config.n_predict or (N_PREDICT,))[0], config.limit)
    if config.instrument == CHEF:
        return Chef.of(encoder, config.budgets, config.limit)
    if config.instrument == MCAS:
        return Mcas.of(encoder, config.budgets, config.limit)
    if config.instrument == DELIVERY:
        assert config.items is not None  # the config allows no other
        return Delivery.of(encoder, config.items, config.budgets, config.limit)
    level = detect_level(allow_weak=config.allow_weak_sandbox)
    return Recovery.of(encoder, config.budgets, config.limit, level)


def _apart(
    config: MeasureConfig, run: RunDirectory, prepared: Prepared, reporter: Reporter
) -> Prepared:
    """Raise UserError where an adapter was trained on measured items, unless allowed."""
    asked, entries = prepared.instrument.asked, {}
    for one in prepared.conditions:
        if one.adapter is not None:
            found = trained_on.recorded_overlap(one.adapter, prepared.instrument.dataset, asked)
            what = f"--adapter {one.adapter}"
            entries[one.name] = trained_on.examine(
                what, found, asked, allowed=config.allow_overlap, say=reporter.say
            )
    if entries:
        run.extend_manifest(overlap=entries)
    seen = frozenset(name for name, entry in entries.items() if entry["shared"])
    return replace(prepared, trained_on_test=seen)


def _check_adapter(path: Path, directory: ModelDirectory) -> None:
    """Raise UserError for whatever would stop this adapter from being attached."""
    config, weights = load_adapter(path, directory)
    if not config.scale:
        raise UserError(f"{path}: lora_alpha is 0, so the adapter changes nothing; train it again")
    try:
        check_weights(config, weights, model_size(directory).linear_modules)
    except UserError as error:
        raise UserError(f"--adapter {path}: {error}") from None


def _measure_group(
    config: MeasureConfig,
    run: RunDirectory,
    prepared: Prepared,
    group: Sequence[Condition],
    reporter: Reporter,
) -> dict[str, list[Record]]:
    """Measure what is missing of conditions that share one open model; records by condition."""
    stores = {one.name: run.json_lines(f"{one.slug}.jsonl") for one in group}
    ids = prepared.instrument.item_ids
    waiting = [one for one in group if not set(ids) <= _done(stores[one.name]).keys()]
    if waiting:
        with _opened(config, prepared, group[0].adapter, reporter) as model:
            described = {k: v for k, v in model.describe().items() if k not in EDIT}
            engine = {**described, "processor": provenance.hardware()["processor"]}
            if prepared.only is not None:
                prepared.only.check(group[0].name, engine, run.manifest())
            # one engine for the whole run: conditions that are compared, and continuations
            run.extend_manifest(engine=engine)
            for one in waiting:
                with (
                    run.timed(f"measure {one.name}") as counts,
                    nullcontext() if one.scales is None else model.tempered(one.scales),
                ):
                    _measure(prepared.instrument, model, one, stores[one.name], counts, reporter)
    done = {name: _done(store) for name, store in stores.items()}
    return {name: [records[item] for item in ids] for name, records in done.items()}


@contextmanager
def _opened(
    config: MeasureConfig, prepared: Prepared, adapter: Path | None, reporter: Reporter
) -> Iterator[LanguageModel]:
    """The model, with the adapter on top: an engine takes one, so each has a model of its own."""
    directory = prepared.directory
    needed = model_size(directory).parameters * ITEM_BYTES[config.dtype]
    free = free_memory(prepared.backend)
    if needed > free:
        raise UserError(
            f"{directory.name} needs {needed / 1e9:.1f} GB in {config.dtype} and {free / 1e9:.1f} "
            "GB are free: choose --dtype bfloat16 or a smaller model"
        )
    reporter.say(
        f"opening {directory.name} on {prepared.backend} ({config.dtype})"
        + (f" with adapter {adapter.name}" if adapter else "")
    )
    with open_backend(prepared.backend, directory, dtype=config.dtype) as model:
        if adapter is not None:
            model.attach_lora(*load_adapter(adapter, directory))
        yield model


def _measure(
    instrument: Instrument,
    model: LanguageModel,
    condition: Condition,
    store: JsonLines,
    counts: dict[str, float],
    reporter: Reporter,
) -> None:
    """Measure in whole chunks; of one that a kill left unfinished, only what is missing is kept."""
    ids, done = instrument.item_ids, _done(store)
    counts["items"] = 0
    with reporter.bar(condition.name, len(ids), "items", done=len(done)) as bar:
        for start in range(0, len(ids), instrument.chunk):
            places = range(start, min(start + instrument.chunk, len(ids)))
            missing = {ids[place] for place in places} - done.keys()
            if not missing:
                continue
            for record in instrument.measure(model, places):
                if record["item_id"] in missing:
                    store.append(record)
            counts["items"] += len(missing)
            bar.advance(len(missing))


def _done(store: JsonLines) -> dict[str, Record]:
    return {record["item_id"]: record for record in store.records}


def _metrics(
    config: MeasureConfig,
    run: RunDirectory,
    prepared: Prepared,
    found: Mapping[str, Sequence[Record]],
    judged: JudgedRecords | None,
) -> dict[str, Any]:
    manifest, gates = run.manifest(), prepared.gates
    conditions = {}
    for one in prepared.conditions:
        edited, records = one.name != BASE, found[one.name]
        conditions[one.name] = {
            "result": prepared.instrument.summarise(records, gates),
            "against": one.against if edited else None,
            "comparison": prepared.instrument.compare(
                found[one.against],
                records,
                gates,
                trained_on_test=one.name in prepared.trained_on_test,
            )
            if edited
            else None,
            **({} if judged is None else {"labels": judged.counts[one.name]}),
        }
    return {
        "schema_version": "threearc-measure-2",
        "instrument": config.instrument,
        "model": manifest["model"],
        "n_items": len(prepared.instrument.item_ids),
        "conditions": conditions,
        "judge": None
        if judged is None
        else {"id": manifest["judge"], "validity": judged.validity.to_json()},
        **({"self_verification": svr_validity(gates)} if config.instrument in FREE else {}),
        "config": config.model_dump(mode="json"),
        "made_with": {k: v for k, v in manifest.items() if k not in ("config", "command", "arc")},
    }
