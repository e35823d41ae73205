"""All stages in order, then one table. What a stage cannot do is said in its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arcs.data.paper import import_paper
from arcs.data.writing import jsonl
from arcs.measure.judged import JudgeSettings
from arcs.paper.config import PaperConfig
from arcs.paper.plan import Plan, plan, wanted_stages
from arcs.paper.recipe import PromptSet, Recipe
from arcs.paper.runners import PROMPTS, prompts_file, run_stage
from arcs.paper.table import rows
from arcs.progress import Reporter
from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.files import locate
from arcs.runs import METRICS, RunDirectory
from backends import choose_backend
from evals.humaneval.sandbox import detect_level
from evals.items.load import built_in
from evals.items.recorded import PromptItem
from evals.items.records import ChefItem
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import write_atomically
from models.fingerprint import file_sha256
from models.hub import NotOnDiskError
from models.store import prepare

SCHEMA = "threearc-paper-1"
EXECUTES = ("arc1", "eval")
SHIPPED: Mapping[PromptSet, tuple[str, int]] = {
    "step16": ("chef_train", 100), "fresh": ("chef_fresh", 193)
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """What is found and checked before there is a run."""

    directory: ModelDirectory
    backend: str
    plan: Plan
    artifacts: Artifacts | None


def prepare_paper(
    config: PaperConfig, recipe: Recipe, reporter: Reporter, *, runs: bool = True
) -> Prepared:
    """Everything that a user could have got wrong, in one line each (UserError).

    ``runs``: False where nothing will be, so that what executes programs need not be here.
    """
    backend = choose_backend(config.backend)
    artifacts = None
    if config.artifacts is not None:
        if not config.artifacts.is_dir():
            raise UserError(
                f"--artifacts {config.artifacts}: no such folder; threearc data import paper "
                "--download fetches the paper's files"
            )
        artifacts = Artifacts(config.artifacts)
        import_paper(artifacts)  # what is not there or damaged is said now
    directory = on_disk(config.model, reporter)
    wanted = wanted_stages(config, recipe)
    if runs and any(one.kind in EXECUTES for one in recipe.stages if one.name in wanted):
        from backends.llamacpp import require_installed

        require_installed()
        detect_level(allow_weak=config.allow_weak_sandbox)
    return Prepared(directory, backend, plan(config, recipe, directory, backend), artifacts)


def on_disk(model: str, reporter: Reporter) -> ModelDirectory:
    """The model's directory; nothing is fetched. Raises UserError that says how to get it."""
    try:
        return prepare(model, offline=True, say=reporter.say)
    except NotOnDiskError as error:
        from models.registry import lookup

        spec = lookup(model)
        if spec is None or spec.embedded:
            raise
        raise UserError(
            f"{spec.name}: its weights are not on this machine ({spec.licence}"
            f"{', gated: accept its terms first' if spec.gated else ''}, about "
            f"{2 * spec.parameters / 1e9:.1f} GB); fetch them with hf download {spec.hub_id}, or "
            "give the path of a copy with --as "
            f"{spec.name.lower()}; threearc paper smollm2-135m --as {spec.name.lower()} runs the "
            "recipe on the embedded model"
        ) from error


def run_paper(
    config: PaperConfig,
    recipe: Recipe,
    prepared: Prepared,
    run: RunDirectory,
    reporter: Reporter,
    judging: JudgeSettings | None = None,
) -> dict[str, Any]:
    """Run or continue ``run``; returns what stands in its metrics.json.

    A stage that an arc refuses (too few answers of a kind, a step that needs more memory) does not
    stop the others: its reason stands in its rows, and --run tries it again.
    """
    directory = prepared.directory
    run.extend_manifest(
        model={"name": directory.name, "family": directory.family, "source": directory.source,
               "fingerprint": directory.fingerprint, "gguf_sha256": directory.gguf_sha256},
        backend=prepared.backend,
    )  # fmt: skip
    _write_prompts(prepared, run)
    found: dict[str, Any] = {}
    refused: dict[str, str] = {}
    stages = prepared.plan.stages
    for place, stage in enumerate(stages, start=1):
        needs = (stage.recipe.adapter_of, stage.recipe.source)
        lacking = next((one for one in needs if one in refused), None)
        if lacking is not None:
            refused[stage.name] = f"it needs {lacking}, which could not be run ({refused[lacking]})"
            continue
        reporter.say(f"[{place}/{len(stages)}] {stage.name} (threearc {stage.recipe.kind})")
        try:
            with run.timed(stage.name):
                found[stage.name] = run_stage(stage, run, reporter, judging)
        except UserError as error:
            refused[stage.name] = " ".join(str(error).split())
            reporter.say(f"{stage.name}: could not be run: {refused[stage.name]}")
    metrics = _metrics(config, recipe, prepared, run, found, refused)
    run.write_json(METRICS, metrics)
    return metrics


def _write_prompts(prepared: Prepared, run: RunDirectory) -> None:
    """The paper's prompts as its importer writes them, or as many that ship."""
    wanted = [s.recipe.prompts for s in prepared.plan.stages if s.recipe.prompts is not None]
    if not wanted:
        return
    made = None if prepared.artifacts is None else import_paper(prepared.artifacts)
    (run.path / PROMPTS).mkdir(exist_ok=True)
    licence = None
    if prepared.artifacts is not None:
        licence = locate(prepared.artifacts.folder, "LICENSE")
    if licence is not None:  # its notice goes with the texts
        write_atomically(run.path / PROMPTS / "LICENSE", licence.read_bytes())
    for name in wanted:
        path = prompts_file(run.path, name)
        if not path.exists():
            write_atomically(path, jsonl(shipped(name) if made is None else made.prompts[name]))
    run.extend_manifest(
        prompts={name: file_sha256(prompts_file(run.path, name)) for name in wanted},
        artifacts=None
        if made is None or prepared.artifacts is None
        else {"sources": made.sources, "changed": sorted(prepared.artifacts.changed)},
    )


def shipped(name: PromptSet) -> list[PromptItem]:
    """Questions that ship, as many as the paper has prompts in that set."""
    origin, n = SHIPPED[name]
    items = built_in(origin, ChefItem)[:n]
    return [PromptItem(id=one.id, prompt=one.prompt, set=origin) for one in items]


def _metrics(
    config: PaperConfig,
    recipe: Recipe,
    prepared: Prepared,
    run: RunDirectory,
    found: dict[str, Any],
    refused: dict[str, str],
) -> dict[str, Any]:
    manifest = run.manifest()
    plan_ = prepared.plan
    return {
        "schema_version": SCHEMA,
        "model": manifest["model"],
        "recipe": {"of": recipe.model, "stands_in": manifest["model"]["name"] != recipe.model},
        "rows": rows(recipe, plan_, found, refused),
        "stages": [
            {
                "name": one.name,
                "kind": one.kind,
                "state": "finished" if one.name in found
                else "refused" if one.name in refused else "left out",
                "why": refused.get(one.name) or plan_.left_out.get(one.name),
                "claims": _claims(found.get(one.name)),
            }
            for one in recipe.stages
        ],
        "config": config.model_dump(mode="json"),
        "made_with": {k: v for k, v in manifest.items() if k not in ("config", "command", "arc")},
    }  # fmt: skip


def _claims(metrics: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The stage's own verdicts."""
    from arcs.report.generic import claims_in

    return [
        {"about": card.about, "statement": card.statement, "verdict": card.verdict,
         "reasons": list(card.reasons)}
        for card in claims_in(metrics or {}, main_only=True)
    ]  # fmt: skip
