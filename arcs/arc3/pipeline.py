"""Answer, read features, label, analyse; everything that finishes is kept.

prepare -> answers (or those of another run) -> features -> labels -> analysis -> sidecar
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from arcs import provenance, trained_on
from arcs.arc3 import analysis, beside, features, labelling, responses, sidecar
from arcs.arc3.config import GGUF, Arc3Config, require_run
from arcs.arc3.edit import Edit, edit_of, fingerprint_of, name_of
from arcs.arc3.engine import Engine, engine_of, opened
from arcs.arc3.kept import ANALYSIS, study_sha256
from arcs.arc3.labelling import Labelled, Labelling
from arcs.arc3.probing import Study
from arcs.arc3.questions import (
    SETS,
    Asked,
    Question,
    SetName,
    describe,
    encoder_of,
    more_fresh,
    questions,
)
from arcs.arc3.responses import Response
from arcs.arc3.table import Difficulty, Side, sides
from arcs.arc3.transcripts import transcripts
from arcs.claims import ReasonCode
from arcs.gates import Gates, load_gates
from arcs.judging.opening import JudgeOptions, check_judge
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory
from arcs.transcripts import TRANSCRIPTS, write_transcripts
from backends.interface import LanguageModel
from backends.verification import verify
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.disk import require_free
from models.errors import UserError
from models.fingerprint import file_sha256
from models.geometry import read_geometry
from models.store import prepare

RUN_BYTES = 300 << 20
LABELS = "labels.json"


@dataclass(frozen=True)
class More:
    """Fresh questions that a finished run goes on with."""

    title: str
    """Of the set that they are of."""
    items: tuple[Asked, ...]
    verification: str
    """The run's own: what engines say of each other was asked once."""
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], None]
    """Given the definition of features and the manifest before anything is answered; raises
    UserError where they are not the run's."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Of tasks, by id."""


@dataclass(frozen=True)
class Prepared:
    """What all stages share."""

    directory: ModelDirectory
    edit: Edit | None
    encoder: ChatEncoder
    engine: Engine
    asked: tuple[Question, ...]
    gates: Gates

    @property
    def fingerprint(self) -> str:
        """Of the weights that answer and are read."""
        return fingerprint_of(self.directory, self.edit)

    @property
    def longest(self) -> int:
        """Ids of the longest prompt."""
        return max(len(one.prompt.ids) for one in self.asked)

    def opened(self, longest: int, reporter: Reporter) -> AbstractContextManager[LanguageModel]:
        """The model, with the adapter if there is one."""
        return opened(
            self.engine, self.directory, longest=longest, reporter=reporter, edit=self.edit
        )


def run_arc3(
    config: Arc3Config, run: RunDirectory, reporter: Reporter, options: JudgeOptions
) -> dict[str, Any]:
    """Run or continue ``run``; returns what stands in its metrics.json."""
    asking = replace(options, threads=config.judge_threads, max_tokens=config.judge_max_tokens)
    with run.timed("prepare"):
        if config.source.judge is not None:
            check_judge(config.source.judge, reporter, asking)  # before answers it is to judge
        prepared = prepare_run(config, run, reporter)
    found = read(config, run, prepared, reporter)
    with run.timed("label"):
        labels = labelling.label(config, found, run, prepared.gates, reporter, asking)
    with run.timed("analyse"):
        table = sides(found, labels, features.load(run.path), _difficulty(config, found))
        _say_unused_difficulty(config, table, reporter)
        study = Study(
            table["train"], table["fresh"], config.sizes, config.seed, prepared.gates.level
        )
        results = analysis.analyse(
            study, prepared.gates, _faults(labels, found, study, prepared.gates), reporter,
            run.json_lines(ANALYSIS),
        )  # fmt: skip
        compared = _beside(config, study, reporter)
        gate = results["gate"]
        write_transcripts(
            run.path / TRANSCRIPTS,
            transcripts(
                found, labels, table, analysis.scores_of(study, run.json_lines(ANALYSIS)),
                gate["chosen"]["threshold"] if gate and gate["chosen"] else None, config.budget,
            ),
        )  # fmt: skip
    run.extend_manifest(labels=labels.identity)
    metrics = _metrics(config, run, found, labels, study, results, compared)
    with run.timed("sidecar"):
        metrics["end_to_end"] = _end_to_end(config, run, prepared, study, results, reporter)
    run.write_json(METRICS, metrics)
    return metrics


def prepare_run(
    config: Arc3Config, run: RunDirectory, reporter: Reporter, more: More | None = None
) -> Prepared:
    """Check everything that can be before a model is opened. Raises UserError for each mistake."""
    require_free(run.path, RUN_BYTES, "the run")
    engine = engine_of(config)
    directory = prepare(config.model, say=reporter.say)
    edit = edit_of(config.adapter, directory, gguf=engine.name == GGUF)
    encoder = encoder_of(directory, config.labels)
    if more is None:
        asked = questions(config.asked, encoder, config.per_set)
    else:
        asked = more_fresh(more.items, encoder, more.kinds)
    title = config.asked if more is None else more.title
    prepared = Prepared(directory, edit, encoder, engine, asked, load_gates())
    context = read_geometry(directory.path).context_length
    if prepared.longest + config.budget > context:
        raise UserError(
            f"--n-predict {config.budget}: with the longest prompt that is "
            f"{prepared.longest + config.budget} tokens, and {directory.name} has {context}"
        )
    if edit is not None:
        say = reporter.say if more is None else _nothing  # the plan has said it already
        run.extend_manifest(overlap=_require_apart(edit, config, asked, title, say))
    borrowed = None if config.ids_from is None else _borrowed(config, prepared)
    other = None if config.difficulty is None else _other_model(config, prepared)
    known = run.manifest().get("model", {}).get("verification")
    known = known if more is None else more.verification
    verification = str(known) if known is not None else verify(directory, say=reporter.say)
    run.extend_manifest(
        model={
            "name": name_of(directory, edit),
            "family": directory.family,
            "source": directory.source,
            "fingerprint": prepared.fingerprint,
            "gguf_sha256": directory.gguf_sha256,
            "verification": verification,
            **_edited(directory, edit),
        },
        backend=str(engine),
        chat=encoder.describe(),
        questions={**describe(asked, title), "n_predict": config.budget},
        ids_from=borrowed,
        difficulty_from=other,
        gates=prepared.gates.to_json(),
    )
    return prepared


def _edited(directory: ModelDirectory, edit: Edit | None) -> dict[str, Any]:
    """What an edited model is made of; nothing of a base."""
    if edit is None:
        return {}
    return {
        "base": {"name": directory.name, "fingerprint": directory.fingerprint},
        "adapter": {"name": edit.name, "sha256": edit.sha256},
    }


def _nothing(said: str) -> None:
    del said


def dataset_of(asked: str) -> str:
    """What an adapter's record of its training calls what is asked."""
    return asked.replace("-", "_")


def wordings_of(text: str, asked: str) -> tuple[str, str]:
    """A question as it is published, and as it stands in the user's turn."""
    before, behind = sidecar.AROUND[asked]
    return text, f"{before}{text}{behind}"


def _require_apart(
    edit: Edit,
    config: Arc3Config,
    asked: Sequence[Question],
    title: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """For the manifest. Raises UserError where the adapter was trained on what is asked."""
    wordings = {one.item_id: wordings_of(one.text, config.asked) for one in asked}
    found = trained_on.recorded_overlap(edit.path, dataset_of(title), wordings)
    if found:
        named = ", ".join(str(one) for one in found[: trained_on.NAMED])
        more = ", ..." if len(found) > trained_on.NAMED else ""
        raise UserError(
            f"--adapter {edit.path}: {len(found)} of the {len(asked)} questions are among its "
            f"training prompts ({named}{more}); choose other --items, or train without them"
        )
    return trained_on.examine(f"--adapter {edit.path}", found, wordings, allowed=False, say=say)


def _borrowed(config: Arc3Config, prepared: Prepared) -> dict[str, Any]:
    """What the run is whose answers are read. Raises UserError where they do not fit."""
    path = config.ids_from
    assert path is not None
    theirs = require_run(path, "--ids-from", responses.RESPONSES)
    for what, mine, its in (
        ("model", prepared.fingerprint, theirs["model"]["fingerprint"]),
        ("items", config.asked, theirs["questions"]["items"]),
        ("n_predict", config.budget, theirs["questions"]["n_predict"]),
    ):
        if mine != its:
            raise UserError(
                f"--ids-from {path}: its {what} is {its} and here it is {mine}; give the same"
            )
    # who answered: of a run that took its answers from a third one, that one
    answered = theirs.get("ids_from") or theirs
    return {"backend": answered["backend"], "engine": answered.get("engine")}


def _other_model(config: Arc3Config, prepared: Prepared) -> dict[str, Any]:
    """What the run is whose labels are the items' difficulty.

    Raises UserError where that would be the model's own result.
    """
    assert config.difficulty is not None
    theirs = require_run(config.difficulty, "--difficulty-from", LABELS)
    if theirs["model"]["fingerprint"] in (prepared.fingerprint, prepared.directory.fingerprint):
        raise UserError(
            f"--difficulty-from {config.difficulty}: that run is of the same model, whose own "
            "result is no baseline; give another model's"
        )
    return {
        "model": {key: theirs["model"].get(key) for key in ("name", "fingerprint")},
        "backend": theirs["backend"],
        "questions": {key: theirs["questions"][key] for key in ("items", "n_predict")},
        "labels": theirs.get("labels"),
        "labels_sha256": file_sha256(config.difficulty / LABELS),
    }


def read(
    config: Arc3Config,
    run: RunDirectory,
    prepared: Prepared,
    reporter: Reporter,
    more: More | None = None,
) -> tuple[Response, ...]:
    """Answers and features; the model is opened once, and only where something is missing."""
    store = responses.store_of(run)
    if config.ids_from is not None:
        responses.take(config.ids_from, prepared.asked, store)
    unanswered = responses.missing(prepared.asked, store)
    sets = [name for name in SETS if any(one.set == name for one in prepared.asked)]
    if unanswered or not features.complete(run.path, sets):
        longest = prepared.longest + config.budget
        with prepared.opened(longest, reporter) as model:
            described = _describe(model)
            definition = _definition(config, prepared, model, described)
            if more is not None:
                more.check(definition.to_json(), run.manifest())
            run.extend_manifest(engine=described)
            if unanswered:
                with run.timed("answer") as counts:
                    responses.generate(
                        model, prepared.encoder, prepared.asked, config.budget, store, counts,
                        reporter,
                    )  # fmt: skip
            found = responses.responses(prepared.asked, store, prepared.encoder)
            with run.timed("features") as counts:
                features.extract(
                    model, found, definition, run, counts, reporter, adds=more is not None
                )
    return responses.responses(prepared.asked, store, prepared.encoder)


def _describe(model: LanguageModel) -> dict[str, Any]:
    return {**model.describe(), "processor": provenance.hardware()["processor"]}


def _definition(
    config: Arc3Config, prepared: Prepared, model: LanguageModel, described: Mapping[str, Any]
) -> features.Definition:
    return features.Definition(
        position=config.position,
        poolings=tuple(one.value for one in features.poolings_of(model)),
        last_k=min(features.LAST_K, read_geometry(prepared.directory.path).n_layers),
        n_layers=read_geometry(prepared.directory.path).n_layers,
        ids_source="generated",
        stop_ids=prepared.encoder.end_ids,
        model_fingerprint=prepared.fingerprint,
        engine=described,
    )


def _difficulty(config: Arc3Config, found: Sequence[Response]) -> Difficulty | None:
    """Another model's label of each item, joined by id; None for one that it did not answer."""
    if config.difficulty is None:
        return None
    theirs = RunDirectory(config.difficulty, -1).read_json(LABELS)["right"]
    wanted = {one.question.item_id for one in found}
    if not wanted & theirs.keys():
        raise UserError(
            f"--difficulty-from {config.difficulty}: that run was asked none of these items"
        )

    def of(one: Response) -> float | None:
        value = theirs.get(one.question.item_id)
        return None if value is None else float(value)

    return of


def _say_unused_difficulty(
    config: Arc3Config, table: Mapping[SetName, Side], reporter: Reporter
) -> None:
    """A baseline that was asked for and cannot be had is not dropped in silence."""
    lacking = [name for name, side in table.items() if side.answers.difficulty is None]
    if config.difficulty is not None and lacking:
        reporter.say(
            f"--difficulty-from {config.difficulty}: without a result for every answer that is "
            f"used here ({' and '.join(lacking)}), another model's result is no baseline; give a "
            "run of the same --items and --limit"
        )


def _beside(config: Arc3Config, study: Study, reporter: Reporter) -> dict[str, Any] | None:
    """The features of the run whose answers were read, where it has some of the same position."""
    if config.ids_from is None or not features.complete(config.ids_from):
        return None
    found = beside.compare(config.ids_from, study, config.position)
    if found is None:
        reporter.say(
            f"--ids-from {config.ids_from}: its features are not compared with these, being of "
            "another --position, or no answer has a label"
        )
    return found


def _faults(
    labels: Labelling, found: Sequence[Response], study: Study, gates: Gates
) -> tuple[ReasonCode, ...]:
    """Instrument faults that are known before any statistic; each set is held to the bar alone.

    Answers without the position are missing too: read at the end of the turn, all cut ones are.
    """
    faults = []
    most = gates.validity.max_missing_share
    if labels.failing:
        faults.append(ReasonCode.JUDGE_NOT_VALID)
    for name in SETS:
        own = [
            label.right
            for one, label in zip(found, labels.of, strict=True)
            if one.question.set == name
        ]
        if own.count(None) > most * len(own):
            faults.append(ReasonCode.INFRASTRUCTURE)
            break
    for side in (study.train, study.fresh):
        if side.without_features > most * (len(side.y) + side.without_features):
            faults.append(ReasonCode.NO_POSITION)
            break
    return tuple(faults)


def write_labels(
    run: RunDirectory, found: Sequence[Response], labels: Labelling
) -> dict[str, Labelled]:
    """By item, with how its answer could have ended and its kind; returned by item too."""
    of = dict(zip((one.item_id for one in labels.of), labels.of, strict=True))
    run.write_json(LABELS, {
        "right": {name: one.right for name, one in of.items()},
        "low": {name: one.low for name, one in of.items()},
        "high": {name: one.high for name, one in of.items()},
        "asserted": dict(zip(of, labels.asserted, strict=True)),
        "group": {one.question.item_id: one.question.group for one in found},
    })  # fmt: skip
    return of


def _metrics(
    config: Arc3Config,
    run: RunDirectory,
    found: Sequence[Response],
    labels: Labelling,
    study: Study,
    results: Mapping[str, Any],
    compared: Mapping[str, Any] | None,
) -> dict[str, Any]:
    of = write_labels(run, found, labels)
    manifest = run.manifest()
    sets = {}
    for name in SETS:
        side: Side = {"train": study.train, "fresh": study.fresh}[name]
        own = [one for one in found if one.question.set == name]
        sets[name] = {
            "answers": responses.summary(own),
            "labels": labelling.counts([of[one.question.item_id] for one in own]),
            "used": len(side.y),
            "right": side.n_right,
            "without_label": side.without_label,
            "without_features": side.without_features,
        }
    return {
        "schema_version": "threearc-arc3-1",
        "model": manifest["model"],
        "backend": manifest["backend"],
        "sets": sets,
        **results,
        "beside": compared,
        "config": config.model_dump(mode="json"),
        "made_with": {
            **{k: v for k, v in manifest.items() if k not in ("config", "command", "arc")},
            "labels": labels.instrument,
            "delivery": labels.delivery,
        },
    }


def _end_to_end(
    config: Arc3Config,
    run: RunDirectory,
    prepared: Prepared,
    study: Study,
    results: Mapping[str, Any],
    reporter: Reporter,
) -> dict[str, Any] | None:
    """Fit the sidecar, and let it answer some fresh questions; None where there is no gate.

    A sidecar of other labels than these (a judge was asked again) does not outlive them.
    """
    tried = run.path / sidecar.TRIED
    if results["gate"] is None or results["gate"]["chosen"] is None:
        shutil.rmtree(run.path / sidecar.FOLDER, ignore_errors=True)
        tried.unlink(missing_ok=True)
        return None
    made = sidecar.fit(study, config, run, prepared.directory, prepared.fingerprint, results)
    made.save(run.path / sidecar.FOLDER)
    made_of = study_sha256(study)
    if not tried.is_file() or run.read_json(sidecar.TRIED).get("study") != made_of:
        asked = [one for one in prepared.asked if one.set == "fresh"][: sidecar.TRIES]
        longest = prepared.longest + config.budget
        with prepared.opened(longest, reporter) as model:
            found = sidecar.try_out(model, prepared.encoder, made, asked, config.budget, study)
            run.write_json(sidecar.TRIED, {**found, "study": made_of})
    kept = run.read_json(sidecar.TRIED)
    return {key: value for key, value in kept.items() if key not in ("milliseconds", "study")}
