"""The phases of Arc 2, each of which picks up where an earlier process was stopped.

prepare -> baseline (answers, contrasts) -> cohorts -> heads -> ablations -> choice of heads
-> sweep -> the same through llama.cpp, on request -> conclude

What is decided on the unchanged model (cohorts, axis, heads) is written to the manifest before the
first damped token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from arcs import provenance
from arcs.arc2 import stages
from arcs.arc2.attribution import FOLDS, Ranking
from arcs.arc2.cohorts import Cohorts, formed
from arcs.arc2.config import Arc2Config
from arcs.arc2.dispositions import DISPOSITIONS, Disposition, Labelled, spread
from arcs.arc2.prompts import parts
from arcs.arc2.ranking import cohort_answers, of_each, ranked_by_ablation, ranked_by_outputs
from arcs.arc2.selection import UNCHANGED, Point, Selection, points, select
from arcs.arc2.sources import TOKENS, ExactMatch, Execution, Judged, MeterContexts, Source
from arcs.gates import Gates, load_gates
from arcs.judging.opening import JudgeOptions
from arcs.measure.judged import JudgeSettings
from arcs.progress import Reporter
from arcs.runs import METRICS, JsonLines, RunDirectory
from backends import choose_backend, free_memory, open_backend
from backends.interface import Head, LanguageModel, Prompt
from backends.memory import ITEM_BYTES, model_size
from backends.sequences import TokenSequence
from backends.verification import verify
from evals.humaneval.sandbox import detect_level
from evals.items.load import built_in
from evals.items.records import MeterItem
from evals.meter import EncodedPair, choose, encode_pair, ids_sha256
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.disk import require_free
from models.errors import UserError
from models.geometry import read_geometry
from models.store import prepare

RUN_BYTES = 256 << 20
Opener = Callable[[], LanguageModel]
"""The model, opened when something is first asked of it."""
HEADS = "heads"
ABLATIONS = "ablations.jsonl"


@dataclass(frozen=True)
class Prepared:
    """What is decided before an engine is opened."""

    directory: ModelDirectory
    backend: str
    encoder: ChatEncoder
    source: Source
    tasks: Source | None
    n_predict: int
    tasks_n_predict: int
    disposition: Disposition
    layers: tuple[int, ...]
    """Those attributed."""
    causal_pairs: tuple[EncodedPair, ...]
    """Meter items that heads are ablated on; empty where the disposition has no axis."""
    axis_pairs: tuple[EncodedPair, ...]
    """Meter items read at every point of the sweep, none of them among ``causal_pairs``."""
    cohort_pairs: tuple[EncodedPair, ...]
    """Meter items whose contrast forms the cohorts (labels ``meter``); else empty."""
    gates: Gates


@dataclass(frozen=True)
class Axis:
    """By what the outcome of the sweep is measured; decided on the unchanged model."""

    kind: str
    """``text``, ``meter`` or ``none``."""
    measure: str
    unit: str
    why: str
    """Why not the text measure, where it is another."""

    def to_json(self) -> dict[str, str]:
        """JSON-able form."""
        return vars(self).copy()


def run_arc2(
    config: Arc2Config,
    run: RunDirectory,
    reporter: Reporter,
    asking: JudgeSettings | None = None,
) -> dict[str, Any]:
    """Run or continue Arc 2 in ``run``; returns what stands in its metrics.json.

    ``asking``: how the judge is asked, where the labels come from one.
    """
    from arcs.arc2.metrics import build

    options = JudgeOptions(threads=config.judge_threads, max_tokens=config.judge_max_tokens)
    asked = asking or JudgeSettings(config.labels, options)

    with run.timed("prepare"):
        prepared = prepare_run(config, run, reporter, asked)
    with closing(Opened(config, prepared, run, reporter)) as opened:
        answers = baseline(config, run, prepared, opened, reporter)
        cohorts, axis = decide(config, run, prepared, answers)
        rankings = attribute(config, run, prepared, opened, cohorts, reporter)
        selection = choose_heads(config, run, rankings, reporter)
        swept = sweep_prompts(config, prepared)
        sweep(config, run, prepared, opened, selection, reporter, swept)
    if config.gguf is not None:
        from arcs.arc2.gguf_sweep import sweep_gguf

        sweep_gguf(config, run, prepared, selection, reporter)
    with run.timed("conclude"):
        metrics = build(config, run, prepared, cohorts, axis, rankings, selection)
        run.write_json(METRICS, metrics)
    return metrics


class Opened:
    """An :data:`Opener` that opens once for the whole run."""

    def __init__(
        self,
        config: Arc2Config,
        prepared: Prepared,
        run: RunDirectory,
        reporter: Reporter,
        check: Callable[[Mapping[str, Any], Mapping[str, Any]], None] | None = None,
    ) -> None:
        """``check``: given engine and manifest before anything is asked of the model."""
        self._config, self._prepared = config, prepared
        self._run, self._reporter, self._check = run, reporter, check
        self._model: LanguageModel | None = None

    def close(self) -> None:
        """Free the model's memory until something is asked of it again."""
        if self._model is not None:
            self._model.close()
            self._model = None

    def __call__(self) -> LanguageModel:
        """The model, opened. Raises UserError where it does not fit, and as ``check``."""
        if self._model is None:
            prepared, config = self._prepared, self._config
            needed = model_size(prepared.directory).parameters * ITEM_BYTES[config.dtype]
            free = free_memory(prepared.backend)
            if needed > free:
                raise UserError(
                    f"{prepared.directory.name} needs {needed / 1e9:.1f} GB in {config.dtype} and "
                    f"{free / 1e9:.1f} GB are free: choose --dtype bfloat16 or a smaller model"
                )
            self._reporter.say(
                f"opening {prepared.directory.name} on {prepared.backend} ({config.dtype})"
            )
            self._model = open_backend(prepared.backend, prepared.directory, dtype=config.dtype)
            engine = {**self._model.describe(), "processor": provenance.hardware()["processor"]}
            if self._check is not None:
                self._check(engine, self._run.manifest())
            # one engine for the whole run: points that are compared, and continuations
            self._run.extend_manifest(engine=engine)
        return self._model


def prepare_run(
    config: Arc2Config, run: RunDirectory, reporter: Reporter, asking: JudgeSettings
) -> Prepared:
    """Check everything that can be before a model is opened. Raises UserError for each mistake."""
    require_free(run.path, RUN_BYTES, "the run")
    backend = choose_backend(config.backend)
    if config.gguf is not None:
        from backends.llamacpp import require_installed

        require_installed()
    directory = prepare(config.model, say=reporter.say)
    encoder = ChatEncoder(directory)
    disposition = DISPOSITIONS[config.disposition]
    n_predict = config.n_predict or TOKENS[config.label_source.kind]
    source = source_of(config, run, encoder, n_predict, reporter, asking)
    tasks = None
    if config.tasks is not None:
        level = detect_level(allow_weak=config.allow_weak_sandbox)
        tasks = Execution.of(encoder, config.tasks_limit, run, level, reporter,
                             TOKENS["execution"], config.tasks)  # fmt: skip
    pairs = pairs_of(encoder, disposition, config, source)
    known = run.manifest().get("model", {}).get("verification")
    verification = str(known) if known is not None else verify(directory, say=reporter.say)
    prepared = Prepared(
        directory=directory,
        backend=backend,
        encoder=encoder,
        source=source,
        tasks=tasks,
        n_predict=n_predict,
        tasks_n_predict=TOKENS["execution"],
        disposition=disposition,
        layers=layers_of(config, directory),
        causal_pairs=pairs[0],
        axis_pairs=pairs[1],
        cohort_pairs=pairs[2],
        gates=load_gates(),
    )
    require_context(prepared, config)
    run.extend_manifest(
        model=described_model(directory, verification),
        backend=backend,
        chat=encoder.describe(),
        labels={**source.describe(), "n_predict": n_predict},
        tasks=None if tasks is None else tasks.describe(),
        meter=described_meter(prepared),
        gates=prepared.gates.to_json(),
    )
    return prepared


def described_model(directory: ModelDirectory, verification: str) -> dict[str, Any]:
    """For the manifest."""
    return {
        "name": directory.name,
        "family": directory.family,
        "source": directory.source,
        "fingerprint": directory.fingerprint,
        "gguf_sha256": directory.gguf_sha256,
        "verification": verification,
    }


def source_of(
    config: Arc2Config,
    run: RunDirectory,
    encoder: ChatEncoder,
    n_predict: int,
    reporter: Reporter,
    asking: JudgeSettings,
) -> Source:
    """What is asked, and how it is labelled. Raises UserError where that cannot be done here."""
    kind, judge = config.label_source.kind, config.label_source.judge
    if judge is not None:
        return Judged.of(encoder, judge, asking, config.limit, run, reporter)
    if kind == "exact-match":
        return ExactMatch.of(encoder, config.limit)
    if kind == "meter":
        axis = DISPOSITIONS[config.disposition].axis
        if axis is None:
            raise ValueError("the config allows labels of the meter only with an axis")
        return MeterContexts.of(encoder, axis, config.limit)
    level = detect_level(allow_weak=config.allow_weak_sandbox)
    given = (encoder, config.limit, run, level, reporter, n_predict)
    if config.disposition == "self-improving":
        return Execution.recovery(*given)
    return Execution.of(*given)


def pairs_of(
    encoder: ChatEncoder, disposition: Disposition, config: Arc2Config, source: Source
) -> tuple[tuple[EncodedPair, ...], tuple[EncodedPair, ...], tuple[EncodedPair, ...]]:
    """Meter items for the ablations, for the sweep, and for the cohorts.

    The ablations get the shortest ones, because each is read once for every head. The sweep gets
    others, and none whose contrast forms the cohorts, so that heads are not judged on the items
    they were chosen on, by whatever method.
    """
    if disposition.axis is None:
        return (), (), ()
    items = choose(built_in("meter", MeterItem), (disposition.axis,), None)
    encoded = [encode_pair(encoder, item) for item in items]
    cohort: list[EncodedPair] = []
    if isinstance(source, MeterContexts):
        asked = {one.item_id for one in source.prompts}
        cohort = [one for one in encoded if one.item.id in asked]
    by_length = sorted(
        cohort or encoded, key=lambda one: len(one.positive.ids) + len(one.negative.ids)
    )
    ablated = by_length[: config.causal_items]
    names = {one.item.id for one in (*ablated, *cohort)}
    rest = [one for one in encoded if one.item.id not in names]
    if len(rest) < (config.axis_items or 2) or len(ablated) < config.causal_items:
        raise UserError(
            f"--causal-items {config.causal_items}"
            + (f", --limit {len(cohort)}" if cohort else "")
            + (f", --axis-items {config.axis_items}" if config.axis_items else "")
            + f": the axis {disposition.axis} has {len(encoded)} items; the heads are ranked on "
            f"some and swept on the other {len(rest)}, so give fewer"
        )
    return tuple(ablated), tuple(rest[: config.axis_items]), tuple(cohort)


def layers_of(config: Arc2Config, directory: ModelDirectory) -> tuple[int, ...]:
    """Whose heads are attributed. Raises UserError for one without attention heads."""
    have = [one.layer for one in read_geometry(directory.path).layers if one.has_o_proj]
    for layer in config.layers:
        if layer not in have:
            raise UserError(
                f"--layers {layer}: no attention heads there; layers that have: "
                + ", ".join(map(str, have))
            )
    return tuple(sorted(set(config.layers))) or tuple(have)


def require_context(prepared: Prepared, config: Arc2Config) -> None:
    """Raise UserError where the longest prompt and its answer do not fit."""
    longest = read_geometry(prepared.directory.path).context_length
    asked = max((len(one.ids) for one in prepared.source.prompts), default=0)
    if asked + prepared.n_predict > longest:
        raise UserError(
            f"--n-predict {prepared.n_predict}: with the longest prompt ({asked} tokens) it "
            f"exceeds the context of {prepared.directory.name} ({longest}); lower it"
        )


def described_meter(prepared: Prepared) -> dict[str, Any] | None:
    """Which items of the meter are used for what, for the manifest; None: no axis."""
    if prepared.disposition.axis is None:
        return None
    return {
        "axis": prepared.disposition.axis,
        "cohorts_on": [one.item.id for one in prepared.cohort_pairs],
        "ablated_on": [one.item.id for one in prepared.causal_pairs],
        "ablated_on_sha256": ids_sha256(prepared.causal_pairs),
        "swept_on": len(prepared.axis_pairs),
        "swept_on_sha256": ids_sha256(prepared.axis_pairs),
    }


def base_pairs(prepared: Prepared) -> tuple[EncodedPair, ...]:
    """Everything of the meter that is read of the unchanged model, each once."""
    found = {one.item.id: one for one in (*prepared.axis_pairs, *prepared.cohort_pairs)}
    return tuple(found.values())


def baseline(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    opened: Opened,
    reporter: Reporter,
) -> list[Labelled]:
    """The unchanged model's answers to all prompts, at the first seed, and its contrasts."""
    with run.timed("baseline") as counts:
        counts["tokens"] = answers_at(
            config, run, prepared, opened, UNCHANGED, config.decodings[0], reporter,
            prepared.source.prompts,
        )  # fmt: skip
        pairs, store = base_pairs(prepared), stages.meter_store(run, UNCHANGED)
        if len(store.records) < len(pairs):
            stages.read_meter(opened(), pairs, store, "meter, unchanged", reporter)
    store = stages.answers_store(run, UNCHANGED, config.decodings[0])
    found = stages.completions(store, prepared.source.prompts)
    if isinstance(prepared.source, Judged):
        opened.close()  # a judge may need the memory
    return prepared.source.label(found, config.decodings[0], UNCHANGED.name)


def answers_at(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    opened: Opener,
    point: Point,
    seed: int | None,
    reporter: Reporter,
    prompts: Sequence[Prompt],
    what: str = "",
) -> int:
    """Answers that are not there yet; opens the model only for those."""
    store = stages.answers_store(run, point, seed, what)
    if len(store.records) >= len(prompts):
        return 0
    shown = point.name if seed is None else f"{point.name}, seed {seed}"
    return stages.answer(
        opened(),
        prompts,
        store,
        f"{what or 'answers'}, {shown}",
        reporter,
        n_predict=prepared.tasks_n_predict if what else prepared.n_predict,
        stop_ids=prepared.encoder.stop_ids,
        sampling=config.sampling(seed or 0),
    )


def decide(
    config: Arc2Config, run: RunDirectory, prepared: Prepared, answers: Sequence[Labelled]
) -> tuple[Cohorts, Axis]:
    """Cohorts and axis, from the unchanged model alone; written to the manifest, once.

    A continued run keeps them: a label that a judge failed to give is asked for again, and would
    else put other answers into the cohorts than those whose heads were read.
    """
    disposition, source = prepared.disposition, prepared.source
    known = run.manifest()
    if "cohorts" in known:
        return Cohorts.from_json(known["cohorts"]), Axis(**known["axis"])
    contrasts = stages.contrasts(stages.meter_store(run, UNCHANGED))
    cohorts, axis = decided(config, prepared, answers, contrasts)
    split = parts(source.prompts, config)
    run.extend_manifest(
        cohorts=cohorts.to_json(),
        prompts={"ranked": len(split.ranked), "swept": len(split.swept),
                 "chosen_on_same": split.chosen_on_same},
        axis=axis.to_json(),
        measures={
            one.name: measurable(one, answers, corrected=disposition.name == "self-improving")
            for one in DISPOSITIONS.values()
        },
    )  # fmt: skip
    return cohorts, axis


def decided(
    config: Arc2Config,
    prepared: Prepared,
    answers: Sequence[Labelled],
    contrasts: Mapping[str, float],
) -> tuple[Cohorts, Axis]:
    """What :func:`decide` decides, of the unchanged model's answers and contrasts."""
    disposition, source = prepared.disposition, prepared.source
    split = parts(source.prompts, config)
    ranked = {one.item_id for one in split.ranked}
    read = [one for one in answers if one.item_id in ranked]
    cohorts = formed(disposition, source.name, read, contrasts)
    # judged on the answers that the sweep will compare, not on all that formed the cohorts
    swept = {one.item_id for one in split.swept}
    axis = axis_of(
        disposition,
        [one for one in answers if one.item_id in swept],
        by_meter=source.name == "meter",
    )
    return cohorts, axis


def axis_of(disposition: Disposition, answers: Sequence[Labelled], *, by_meter: bool) -> Axis:
    """The text measure where it is not saturated, else the meter's axis, else none."""
    if by_meter:
        return Axis(
            "meter", f"meter: {disposition.axis}", "nats per token", "labels are the meter's"
        )
    why = spread(disposition, answers).saturation(disposition)
    if why is None:
        return Axis("text", disposition.measure, "share of answers", "")
    if disposition.axis is not None:
        return Axis("meter", f"meter: {disposition.axis}", "nats per token", why)
    return Axis("none", "none", "", f"{why}; the meter has no axis for {disposition.name}")


def measurable(
    disposition: Disposition, answers: Sequence[Labelled], *, corrected: bool
) -> dict[str, Any]:
    """What a disposition would be measured by on these answers, or why it cannot be.

    ``corrected``: the answers are second ones, to what failed (the recovery tasks).
    """
    if disposition.name == "self-improving" and not corrected:
        return {"measure": disposition.measure, "answers": None, "saturated": None,
                "meter_axis": None, "why_not": "these answers correct nothing"}  # fmt: skip
    found = spread(disposition, answers)
    why = found.saturation(disposition)
    return {
        "measure": disposition.measure,
        "answers": {"shown": found.shown, "n": found.n, "missing": found.missing},
        "saturated": why is not None,
        "meter_axis": disposition.axis,
        "why_not": why if disposition.axis is None else None,
    }


def attribute(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    opened: Opener,
    cohorts: Cohorts,
    reporter: Reporter,
) -> dict[str, Ranking]:
    """Rank all heads by every method that applies."""
    store = stages.answers_store(run, UNCHANGED, config.decodings[0])
    asked = stages.completions(store, prepared.source.prompts)
    sequences, labels = cohort_answers(cohorts, asked, prepared.encoder.stop_ids)
    lacking, empty = sum(labels), len(cohorts.item_ids) - len(sequences)
    if min(lacking, len(labels) - lacking) < FOLDS:
        raise UserError(
            f"cohorts: without the {empty} empty answers {lacking} lacking and "
            f"{len(labels) - lacking} having are left, and {FOLDS} are needed in each; give more "
            "prompts (--limit; a smaller --sweep-limit leaves more), or other --labels"
        )
    few = of_each(labels, config.causal_items)
    ablated_on = [] if prepared.causal_pairs else [sequences[at].item_id for at in few]
    run.extend_manifest(
        attribution={"answers": len(sequences), "empty_answers": empty, "ablated_on": ablated_on,
                     "last_n": config.last_n, "layers": list(prepared.layers)}
    )  # fmt: skip
    folder = run.path / HEADS
    with run.timed("heads") as counts:
        counts["answers"] = len(sequences)
        if not (folder / _last_file(len(sequences))).exists():
            stages.read_heads(opened(), sequences, folder, reporter, last_n=config.last_n)
    with run.timed("ablations"):
        ablated = _ablations(config, run, prepared, opened, [sequences[at] for at in few], reporter)
    with run.timed("attribution"):
        reporter.say("ranking heads, with the null of the largest")
        names = [one.item_id for one in sequences]
        reading = stages.head_reading(names, folder, prepared.layers)
        rankings = {
            method: ranked_by_outputs(method, config, prepared, reading, labels)
            for method in ("magnitude", "directional")
        }
        if ablated is not None:
            rankings["causal"] = ranked_by_ablation(
                config, prepared, reading.heads, ablated.records, labels
            )
    return rankings


def _last_file(n: int) -> str:
    start = (n - 1) // stages.HEADS_AT_A_TIME * stages.HEADS_AT_A_TIME
    return f"{start:06d}.safetensors"


def _ablations(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    opened: Opener,
    sequences: Sequence[TokenSequence],
    reporter: Reporter,
) -> JsonLines | None:
    """Each head ablated once, on meter items or else on the answers themselves; None: not asked."""
    if not config.causal_items:
        return None
    store = run.json_lines(ABLATIONS)
    heads = heads_of(prepared)
    if len(store.records) <= len(heads):
        if prepared.causal_pairs:
            stages.ablate_on_pairs(opened(), heads, prepared.causal_pairs, store, reporter)
        else:
            stages.ablate_on_answers(opened(), heads, sequences, store, reporter)
    return store


def heads_of(prepared: Prepared) -> list[Head]:
    """All that are attributed, in order."""
    return [
        Head(one.layer, head)
        for one in read_geometry(prepared.directory.path).layers
        if one.layer in prepared.layers
        for head in range(one.n_heads)
    ]


def choose_heads(
    config: Arc2Config, run: RunDirectory, rankings: Mapping[str, Ranking], reporter: Reporter
) -> Selection:
    """The heads of the sweep and their controls, written down before anything is damped."""
    ranking = rankings[config.rank_by]
    selection = select(ranking.ordered_heads, config.top_k, config.random_draws, config.seed)
    run.extend_manifest(
        selection={"ranked_by": config.rank_by, "arms": selection.to_json(),
                   "random_sets_possible": selection.random_sets}
    )  # fmt: skip
    if selection.random_sets < config.random_draws:
        reporter.say(
            f"only {selection.random_sets} different random set(s) of {config.top_k} heads can be "
            f"drawn in these layers, not the {config.random_draws} of --random-draws"
        )
    return selection


def sweep_prompts(config: Arc2Config, prepared: Prepared) -> tuple[Prompt, ...]:
    """The prompts answered at every point, from the first."""
    return parts(prepared.source.prompts, config).swept


def sweep(
    config: Arc2Config,
    run: RunDirectory,
    prepared: Prepared,
    opened: Opener,
    selection: Selection,
    reporter: Reporter,
    prompts: Sequence[Prompt],
) -> None:
    """Answers to ``prompts`` and contrasts at every point; lambda 1 at every seed.

    Nothing is asked again of which there is more already: the baseline's answers.
    """
    for point in points(selection, config.scales, config.controls):
        with run.timed(f"sweep {point.name}") as counts:
            counts["tokens"] = 0
            with ExitStack() as inside:
                scaled = _Scaled(opened, point, inside)
                for seed in config.decodings:
                    counts["tokens"] += answers_at(
                        config, run, prepared, scaled, point, seed, reporter, prompts
                    )
                    if prepared.tasks is not None:
                        counts["tokens"] += answers_at(
                            config, run, prepared, scaled, point, seed, reporter,
                            prepared.tasks.prompts, "tasks",
                        )  # fmt: skip
                store = stages.meter_store(run, point)
                if len(store.records) < len(prepared.axis_pairs):
                    stages.read_meter(
                        scaled(), prepared.axis_pairs, store, f"meter, {point.name}", reporter
                    )


class _Scaled:
    """An :data:`Opener` of the same model with a point's heads scaled."""

    def __init__(self, opened: Opener, point: Point, stack: ExitStack) -> None:
        self._opened, self._point, self._inside = opened, point, stack
        self._entered = False

    def __call__(self) -> LanguageModel:
        model = self._opened()
        if not self._entered:
            self._inside.enter_context(stages.at_point(model, self._point))
            self._entered = True
        return model
