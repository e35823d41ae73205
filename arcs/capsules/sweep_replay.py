"""What of an Arc 2 capsule comes out here: without a model its heads, words and claim; with one the
answers and readings of a sample, heads scaled as in the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from arcs.arc2 import stages
from arcs.arc2.config import Arc2Config, parse
from arcs.arc2.dispositions import DISPOSITIONS
from arcs.arc2.pipeline import (
    ABLATIONS,
    Prepared,
    base_pairs,
    described_meter,
    layers_of,
    pairs_of,
    source_of,
)
from arcs.arc2.selection import TOP, UNCHANGED, Point
from arcs.arc2.sources import Judged, Source, chef_prompts
from arcs.arc2.sources import ids_sha256 as prompts_sha256
from arcs.arc3.config import GGUF
from arcs.arc3.engine import Engine, opened
from arcs.capsules import sweep_labels, sweep_numbers
from arcs.capsules.answers import Pair, compared, in_float32
from arcs.capsules.metering import readings_compared
from arcs.capsules.sweep_numbers import Held
from arcs.capsules.sweeping import not_held, points_of, selection_of
from arcs.gates import stored_gates
from arcs.judging.opening import JudgeOptions
from arcs.measure.judged import JudgeSettings
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from backends.interface import LanguageModel
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.store import prepare

SCALED = "heads are scaled by torch and mlx only"
Readings = dict[tuple[str, str], float]
"""By condition and item, nats per token."""


def verify(
    document: Mapping[str, Any],
    model: str | None,
    engine: Engine,
    sample: int,
    seed: int,
    weak: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """Everything that can be said. Raises UserError for another model, questions, or rows that are
    not one to each of them."""
    manifest = document["manifest"]
    config = parse(manifest["config"])
    directory = prepare(model or config.model, say=reporter.say)
    if directory.fingerprint != manifest["model"]["fingerprint"]:
        raise UserError(f"--model {model or config.model}: its weights are not the capsule's; give "
                        "that model")  # fmt: skip
    with (
        TemporaryDirectory(prefix="threearc-verify-") as folder,
        RunDirectory.create(Path(folder) / "again", {}) as run,
    ):
        prepared = prepared_again(manifest, config, directory, engine, run, weak, reporter)
        held = Held.of(document, config, prepared)
        asked = [one.item_id for one in prepared.source.prompts]
        chosen = _drawn(asked, sample, seed)
        made = sweep_numbers.again(held)
        labels = sweep_labels.again(held, chosen)
        pairs = {one.item.id for one in base_pairs(prepared)}
        replay = Replay(held, run, reporter, engine, frozenset(chosen),
                        frozenset(_drawn(sorted(pairs), sample, seed)),
                        frozenset(_drawn([one.item.id for one in prepared.causal_pairs], sample,
                                         seed)))  # fmt: skip
        answers, readings = replay.made()
    return {
        "made_on": f"{manifest['backend']} {config.dtype}",
        "replayed_on": str(engine),
        "sample": {"n": len(chosen), "of": len(asked), "seed": seed, "items": chosen},
        **made,
        "labels": labels,
        **({} if readings is None else {"readings": readings}),
        "answers": answers,
    }  # fmt: skip


def prepared_again(
    manifest: Mapping[str, Any],
    config: Arc2Config,
    directory: ModelDirectory,
    engine: Engine,
    run: RunDirectory,
    weak: bool,
    reporter: Reporter,
) -> Prepared:
    """As the run had it. Raises UserError where questions or meter items are others here."""
    encoder, disposition = ChatEncoder(directory), DISPOSITIONS[config.disposition]
    told = manifest["labels"]
    judge = config.label_source.judge
    if judge is not None:  # of another than the lexical nothing is asked, or looked for
        asked = chef_prompts(encoder, config.limit)
        source: Source = Judged(*asked, encoder, judge, JudgeOptions(), None, run, reporter)
    else:
        mine = config.model_copy(update={"allow_weak_sandbox": weak})
        asking = JudgeSettings(config.labels, JudgeOptions())
        source = source_of(mine, run, encoder, int(told["n_predict"]), reporter, asking)
    if prompts_sha256(source.prompts) != told["ids_sha256"]:
        raise UserError("the run's questions have other ids here than in the capsule's run "
                        "(another version of threearc, or a changed tokenizer)")  # fmt: skip
    causal, axis, cohort = pairs_of(encoder, disposition, config, source)
    prepared = Prepared(
        directory=directory,
        backend=engine.name,
        encoder=encoder,
        source=source,
        tasks=None,
        n_predict=int(told["n_predict"]),
        tasks_n_predict=0,
        disposition=disposition,
        layers=layers_of(config, directory),
        causal_pairs=causal,
        axis_pairs=axis,
        cohort_pairs=cohort,
        gates=stored_gates(manifest["gates"], "the capsule"),
    )
    if described_meter(prepared) != manifest["meter"]:
        raise UserError("the meter's items are others here than in the capsule's run (another "
                        "version of threearc, or a changed tokenizer)")  # fmt: skip
    return prepared


def _drawn(items: Sequence[str], n: int, seed: int) -> list[str]:
    drawn = np.random.default_rng(seed).permutation(len(items))[:n].tolist()
    return [items[place] for place in sorted(drawn)]


@dataclass(frozen=True)
class Replay:
    """The sample, answered and read again at every point that this engine can scale."""

    held: Held
    run: RunDirectory
    """Thrown away afterwards."""
    reporter: Reporter
    engine: Engine
    asked: frozenset[str]
    read: frozenset[str]
    """Items of the meter read at the points."""
    ablated: frozenset[str]
    """Items of the meter that the chosen heads were ablated on."""

    def made(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Answers and readings beside the stored ones; None: the run read nothing."""
        held, prepared = self.held, self.held.prepared
        pairs: list[Pair] = []
        stored: Readings = {}
        read: Readings = {}
        unanswered, unread = not_held(held.config), dict[str, str]()
        texts = [len(one.ids) + prepared.n_predict for one in prepared.source.prompts]
        texts += [len(side.ids) for one in (*base_pairs(prepared), *prepared.causal_pairs)
                  for side in (one.positive, one.negative)]  # fmt: skip
        with opened(self.engine, prepared.directory, longest=max(texts),
                    reporter=self.reporter) as model:  # fmt: skip
            for point in points_of(held.manifest, held.config):
                if point.heads and self.engine.name == GGUF:
                    unanswered[point.arm] = unread[point.arm] = SCALED
                    continue
                with stages.at_point(model, point):
                    answers, here = list(self._answered(model, point)), self._read(model, point)
                for found, missed in ((answers, unanswered), (here, unread)):
                    if not found:
                        missed[point.name] = "nothing of the sample is in the sweep"
                pairs += answers
                read |= here
                stored |= {(point.name, name): one["contrast"]
                           for name, one in held.readings[point.name].items()}  # fmt: skip
            if held.document["ablations"] is not None and prepared.causal_pairs:
                if self.engine.name == GGUF:
                    unread["ablated heads"] = SCALED
                else:
                    told, here = self._ablations(model)
                    stored, read = {**stored, **told}, {**read, **here}
        exact = in_float32(held.config.dtype, self.engine)
        answered = compared(pairs, exact=exact, not_replayed=unanswered)
        if not read:
            return answered, None
        return answered, readings_compared(stored, read, exact=exact, not_replayed=unread)

    def _answered(self, model: LanguageModel, point: Point) -> Iterator[Pair]:
        prepared, config = self.held.prepared, self.held.config
        for seed in config.decodings:
            told = {one.item_id: one for one in self.held.completions[point.name, seed]
                    if one.item_id in self.asked}  # fmt: skip
            prompts = [one for one in prepared.source.prompts if one.item_id in told]
            store = stages.answers_store(self.run, point, seed)
            stages.answer(
                model, prompts, store, f"answers, {point.name}", self.reporter,
                n_predict=prepared.n_predict, stop_ids=prepared.encoder.stop_ids,
                sampling=config.sampling(seed or 0),
            )  # fmt: skip
            arm = point.name if seed is None else f"{point.name}, seed {seed}"
            for made in stages.completions(store, prompts):
                one = told[made.item_id]
                yield Pair(made.item_id, one.ids, made.ids, one.near_ties, arm)

    def _read(self, model: LanguageModel, point: Point) -> Readings:
        prepared = self.held.prepared
        of = base_pairs(prepared) if point is UNCHANGED else prepared.axis_pairs
        pairs = [one for one in of if one.item.id in self.read]
        store = stages.meter_store(self.run, point)
        stages.read_meter(model, pairs, store, f"meter, {point.name}", self.reporter)
        return {(point.name, name): value for name, value in stages.contrasts(store).items()}

    def _ablations(self, model: LanguageModel) -> tuple[Readings, Readings]:
        """Contrasts with each chosen head at 0, as the heads were ranked by: stored, and here."""
        prepared = self.held.prepared
        pairs = [one for one in prepared.causal_pairs if one.item.id in self.ablated]
        store = self.run.json_lines(ABLATIONS)
        heads = selection_of(self.held.manifest).arms[TOP]
        stages.ablate_on_pairs(model, heads, pairs, store, self.reporter)
        every = [one.item.id for one in prepared.causal_pairs]
        told = {stages.head_of(one): dict(zip(every, one["values"], strict=True))
                for one in self.held.document["ablations"]}  # fmt: skip
        stored: Readings = {}
        here: Readings = {}
        for record in store.records:
            head = stages.head_of(record)
            arm = "before ablation" if head is None else f"L{head.layer}H{head.head} ablated"
            for one, value in zip(pairs, record["values"], strict=True):
                stored[arm, one.item.id] = told[head][one.item.id]
                here[arm, one.item.id] = value
        return stored, here
