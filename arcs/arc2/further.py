"""More items for a finished run's sweep: the same heads at the same lambdas, the same instrument.

No heads are chosen here, and no cohorts are formed: those stay the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from arcs.arc1.problems import require_solvable
from arcs.arc2.config import Arc2Config
from arcs.arc2.dispositions import DISPOSITIONS
from arcs.arc2.findings import Sweep
from arcs.arc2.metrics import read_sweep
from arcs.arc2.pipeline import (
    RUN_BYTES,
    Opened,
    Prepared,
    described_meter,
    described_model,
    pairs_of,
    require_context,
    source_of,
    sweep,
)
from arcs.arc2.selection import Selection
from arcs.arc2.sources import TOKENS, ExactMatch, Execution, Judged, MeterContexts, Source
from arcs.arc2.transcripts import SWEEP, Answers, transcripts
from arcs.gates import load_gates
from arcs.judging.opening import JudgeOptions
from arcs.measure.judged import JudgeSettings
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory
from arcs.transcripts import TRANSCRIPTS, write_transcripts
from backends.interface import Head
from evals.benchmarks import Benchmark
from evals.humaneval.execution import Limits
from evals.humaneval.sandbox import detect_level
from evals.items.records import ChefItem, MeterItem, RecoveryItem, ShortAnswer
from evals.meter import encode_pair
from models.chat import ChatEncoder
from models.disk import require_free
from models.store import prepare

Questions = (
    Sequence[ShortAnswer] | Sequence[RecoveryItem] | Sequence[ChefItem] | Sequence[MeterItem]
    | Benchmark
)  # fmt: skip
"""Items, by what labels their answers or reads them; a benchmark has the chosen tasks alone."""


@dataclass(frozen=True)
class Items:
    """What is answered, and what is only read; either may be empty."""

    questions: Questions = ()
    pairs: tuple[MeterItem, ...] = ()


@dataclass(frozen=True)
class More:
    """What goes on, and how it is held to the run."""

    items: Items
    axis: str
    """Kind of the run's axis."""
    arms: Mapping[str, Sequence[Sequence[int]]]
    """The run's heads."""
    verification: str
    """The run's own: what engines say of each other was asked once."""
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], None]
    """Given engine and manifest before anything is asked; raises UserError where they are not the
    run's."""


def run_more(
    config: Arc2Config, run: RunDirectory, reporter: Reporter, more: More
) -> dict[str, Any]:
    """Run or continue ``run``; returns what stands in its metrics.json.

    Raises UserError as a run of Arc 2, and as ``more.check``.
    """
    require_free(run.path, RUN_BYTES, "the run")
    with run.timed("prepare"):
        prepared = prepared_of(config, run, reporter, more.items)
        require_context(prepared, config)
        run.extend_manifest(
            model=described_model(prepared.directory, more.verification),
            backend=prepared.backend,
            chat=prepared.encoder.describe(),
            labels={**prepared.source.describe(), "n_predict": prepared.n_predict},
            meter=described_meter(prepared),
            gates=prepared.gates.to_json(),
            selection={"arms": more.arms},
        )
    selection = selection_of(more.arms)
    with closing(Opened(config, prepared, run, reporter, more.check)) as opened:
        sweep(config, run, prepared, opened, selection, reporter, prepared.source.prompts)
    with run.timed("conclude"):
        asked = [one.item_id for one in prepared.source.prompts]
        found = read_sweep(config, run, prepared, more.axis, selection, asked)
        answers = Answers({name: at.answers for name, at in found.points.items()}, {}, {})
        write_transcripts(run.path / TRANSCRIPTS, transcripts(prepared, answers, {SWEEP: asked}))
        metrics = _metrics(config, run, found)
        run.write_json(METRICS, metrics)
    return metrics


def _metrics(config: Arc2Config, run: RunDirectory, found: Sweep) -> dict[str, Any]:
    manifest = run.manifest()
    return {
        "schema_version": "threearc-arc2-more-1",
        "model": manifest["model"],
        "backend": manifest["backend"],
        "points": {
            name: {"answers": len(at.answers), "meter_items": len(at.contrasts),
                   "without_label": sum(one.right is None for one in at.answers)}
            for name, at in found.points.items()
        },
        "config": config.model_dump(mode="json"),
        "made_with": {k: v for k, v in manifest.items() if k not in ("config", "command", "arc")},
    }  # fmt: skip


def prepared_of(
    config: Arc2Config, run: RunDirectory, reporter: Reporter, items: Items | None = None
) -> Prepared:
    """What answers are read with: a finished run's own, or that of further ``items``.

    ``config``: with the engine that the run has. Raises UserError as its parts.
    """
    directory = prepare(config.model, say=reporter.say)
    encoder = ChatEncoder(directory)
    disposition = DISPOSITIONS[config.disposition]
    n_predict = config.n_predict or TOKENS[config.label_source.kind]
    asking = JudgeSettings(
        config.labels,
        JudgeOptions(threads=config.judge_threads, max_tokens=config.judge_max_tokens),
    )
    if items is None:
        source = source_of(config, run, encoder, n_predict, reporter, asking)
        causal, axis, cohort = pairs_of(encoder, disposition, config, source)
    else:
        source = _asking(config, run, encoder, n_predict, reporter, asking, items.questions)
        causal, cohort = (), ()
        axis = tuple(encode_pair(encoder, one) for one in items.pairs)
    return Prepared(
        directory=directory, backend=config.backend, encoder=encoder, source=source, tasks=None,
        n_predict=n_predict, tasks_n_predict=TOKENS["execution"], disposition=disposition,
        layers=(), causal_pairs=causal, axis_pairs=axis, cohort_pairs=cohort, gates=load_gates(),
    )  # fmt: skip


def _asking(
    config: Arc2Config,
    run: RunDirectory,
    encoder: ChatEncoder,
    n_predict: int,
    reporter: Reporter,
    asking: JudgeSettings,
    questions: Any,
) -> Source:
    """The run's kind of labels, of other prompts."""
    judge, axis = config.label_source.judge, DISPOSITIONS[config.disposition].axis
    if judge is not None:
        return Judged.asking(encoder, questions, judge, asking, run, reporter)
    if config.labels == "meter":
        return MeterContexts((), (), encoder, str(axis))
    if config.labels != "execution":
        return ExactMatch.asking(encoder, questions)
    level = detect_level(allow_weak=config.allow_weak_sandbox)
    if config.disposition == "self-improving":
        return Execution.correcting(encoder, questions, run, level, reporter, n_predict)
    tasks = questions or Benchmark("", "", (), "")
    require_solvable(tasks, tasks.problems, level, Limits(), reporter)
    given = (run, level, reporter, n_predict, tasks.title, tasks.dataset_sha256)
    return Execution.asking(encoder, tasks.problems, *given)


def selection_of(arms: Mapping[str, Sequence[Sequence[int]]]) -> Selection:
    """The heads that a run damped; nothing is chosen again."""
    return Selection({arm: tuple(Head(*head) for head in heads) for arm, heads in arms.items()}, 0)


def pooled(sweeps: Sequence[Sweep]) -> Sweep:
    """All points over several runs, items told apart by the run they are of."""

    def chained(name: str, point: str) -> dict[str, float]:
        return {
            f"{place}:{item}": value
            for place, one in enumerate(sweeps)
            for item, value in getattr(one.points[point], name).items()
        }

    points = {
        name: replace(
            at,
            answers=tuple(
                replace(answer, item_id=f"{place}:{answer.item_id}")
                for place, one in enumerate(sweeps)
                for answer in one.points[name].answers
            ),
            contrasts=chained("contrasts", name),
            likelihoods=chained("likelihoods", name),
        )
        for name, at in sweeps[0].points.items()
    }
    return replace(sweeps[0], points=points)
