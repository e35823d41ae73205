"""Arc 1 in a capsule: every answer at the run's own n_predict, and what its tests said.

Replayed here: the claim's number from the stored outcomes, the labels of a sample (its programs run
again in this machine's sandbox), and the base's answers to the sampled problems (decoded again,
greedily, in the fixed-width mode, so that no neighbour decides).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcs.arc1 import evaluation, problems
from arcs.arc1.evaluation import BASE, TRAINED
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS, JsonLines, RunDirectory
from backends.interface import Completion
from evals.benchmarks import Benchmark, load_benchmark
from evals.humaneval.execution import Limits
from evals.humaneval.extraction import extract
from evals.humaneval.outcomes import Outcome
from evals.humaneval.prompts import PromptStyle
from evals.humaneval.sandbox.detect import detect_level
from evals.statistics import mcnemar_exact, paired_counts
from models.chat import ChatEncoder
from models.errors import UserError
from models.fingerprint import file_sha256
from models.store import cache_root, prepare

KIND = "arc1"
ITEMS = "items.jsonl"


@dataclass(frozen=True)
class _Budget:
    """As :class:`arcs.arc1.evaluation.Settings`."""

    n_predict: tuple[int, ...]
    prompt_style: PromptStyle


def contents(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Claims and rows. Raises UserError for a run that is not finished."""
    completions = evaluation.store_of(RunDirectory(run, -1), BASE).path
    needed = [run / METRICS, run / ITEMS, completions]
    lacking = [path.name for path in needed if not path.is_file()]
    if lacking:
        raise UserError(f"{run}: no {lacking[0]}; finish the run with threearc arc1 --run {run}")
    stored = StoredRun(run)
    metrics = stored.metrics or {}
    n = metrics["primary_n_predict"]
    first = int(manifest["config"]["n_predict"][-1])
    decoded = {row["item_id"]: row for row in stored.lines(completions.name)}
    rows = []
    for row in stored.lines(ITEMS):
        if row["n_predict"] != n:
            continue
        base = decoded[row["item_id"]]
        more = {key: base[key] for key in ("ids", "near_ties")} if row["arm"] == BASE else {}
        rows.append({**row, "prompt_sha": base["prompt_sha"], **more})
    return {
        "files": {path.name: file_sha256(path) for path in needed},
        "claims": {"primary": metrics["claim"]},
        "n_predict": n,
        "decoded_to": first,
        "rows": rows,
    }


def verify(
    document: Mapping[str, Any], model: str | None, sample: int, seed: int, weak: bool,
    reporter: Reporter,
) -> dict[str, Any]:  # fmt: skip
    """Everything that can be said. Raises UserError where model or benchmark are others."""
    manifest = document["manifest"]
    config = manifest["config"]
    benchmark = _benchmark(config, manifest["evaluation"])
    directory = prepare(model or config["model"], say=reporter.say)
    if directory.fingerprint != manifest["model"]["fingerprint"]:
        raise UserError(
            f"--model {model or config['model']}: its weights are not the capsule's; give that "
            "model"
        )
    encoder = ChatEncoder(directory, thinking=config["thinking"])
    tasks = [row["item_id"] for row in document["rows"] if row["arm"] == BASE]
    drawn = np.random.default_rng(seed).permutation(len(tasks))[:sample].tolist()
    chosen = [tasks[place] for place in sorted(drawn)]
    items = _items(benchmark, encoder, config["prompt_style"], chosen, document["rows"])
    with tempfile.TemporaryDirectory() as folder:
        labels = _labels(document, items, config["prompt_style"], Path(folder), weak, reporter)
        answers = _answers(document, items, benchmark, encoder, directory, Path(folder), reporter)
    return {
        "sample": {"n": len(chosen), "of": len(tasks), "seed": seed, "items": chosen},
        "number": _number(document),
        "labels": labels,
        "answers": answers,
    }


def _benchmark(config: Mapping[str, Any], evaluated: Mapping[str, Any]) -> Benchmark:
    found = load_benchmark(config["benchmark"])
    if found.dataset_sha256 != evaluated["dataset_sha256"]:
        raise UserError(f"{config['benchmark']}: its problems are not those of the capsule's run")
    return found


def _items(
    benchmark: Benchmark,
    encoder: ChatEncoder,
    style: PromptStyle,
    chosen: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> list[problems.Item]:
    """Encoded here, and held to the hash of the ids that the run's model was given."""
    by_id = {one.task_id: one for one in benchmark.problems}
    asked = {row["item_id"]: row["prompt_sha"] for row in rows}
    made = [problems.encode(encoder, by_id[name], style) for name in chosen]
    strange = [one.key for one in made if one.prompt_sha != asked[one.key]]
    if strange:
        raise UserError(f"{strange[0]}: its prompt has other ids here than in the capsule's run")
    return made


def _number(document: Mapping[str, Any]) -> dict[str, Any]:
    """Difference and McNemar p from the stored outcomes, exactly as stated."""
    claim = document["claims"]["primary"]
    passes: dict[str, dict[str, bool | None]] = {BASE: {}, TRAINED: {}}
    for row in document["rows"]:
        if row["arm"] in passes:
            outcome = Outcome(row["outcome"])
            missing = outcome is Outcome.INFRASTRUCTURE_ERROR
            passes[row["arm"]][row["item_id"]] = None if missing else outcome is Outcome.PASSED
    ids = sorted(passes[BASE])
    counts = paired_counts(
        [passes[BASE][one] for one in ids], [passes[TRAINED][one] for one in ids]
    )
    p = mcnemar_exact(counts.gained, counts.lost)
    same = claim["delta"] is not None and abs(counts.delta - claim["delta"]) < 1e-12 and (
        abs(p - claim["p_value"]) < 1e-12
    )  # fmt: skip
    return {
        "quantity": f"difference of pass@1 at n_predict {document['n_predict']}",
        "stated": claim["delta"], "recomputed": counts.delta, "p_value": p, "n": counts.n,
        "tolerance": 1e-12, "reproduces": None if claim["delta"] is None else bool(same),
        "why": None if claim["delta"] is not None else "the run's claim states no number",
    }  # fmt: skip


def _labels(
    document: Mapping[str, Any],
    items: Sequence[problems.Item],
    style: PromptStyle,
    folder: Path,
    weak: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """Every arm's answer to the sampled problems, run and labelled again."""
    by_id = {item.key: item for item in items}
    rows = [row for row in document["rows"] if row["item_id"] in by_id]
    given = [
        evaluation.Answer(
            row["arm"], by_id[row["item_id"]], row["n_predict"], row["text"], row["truncated"],
            row["loop"],
            extract(row["text"], by_id[row["item_id"]].problem, style=style,
                    think_open=by_id[row["item_id"]].think_open),
        )
        for row in rows
    ]  # fmt: skip
    level = detect_level(allow_weak=weak)
    executions = evaluation.execute(
        given, JsonLines.open(folder / "executions.jsonl"), level, Limits(), os.cpu_count() or 1,
        reporter,
    )  # fmt: skip
    table = evaluation.results(given, executions)
    found = {(arm, one.item_id): one.outcome.value for arm, budgets in table.items()
             for results in budgets.values() for one in results}  # fmt: skip
    differing = [
        {"item_id": row["item_id"], "arm": row["arm"], "stated": row["outcome"],
         "here": found[row["arm"], row["item_id"]]}
        for row in rows if found[row["arm"], row["item_id"]] != row["outcome"]
    ]  # fmt: skip
    return {"n": len(rows), "same": len(rows) - len(differing), "differing": differing,
            "sandbox": level.name, "reproduces": not differing}  # fmt: skip


def _answers(
    document: Mapping[str, Any],
    items: Sequence[problems.Item],
    benchmark: Benchmark,
    encoder: ChatEncoder,
    directory: Any,
    folder: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """The base's answers, decoded again with the run's own settings of llama.cpp."""
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.quantise import evaluation_gguf

    manifest, engine = document["manifest"], document["manifest"]["engine_base"]
    config = manifest["config"]
    budget = _Budget((int(document["decoded_to"]),), config["prompt_style"])
    gguf = evaluation_gguf(directory, manifest["evaluation"]["quantisation"],
                           cache_root() / "gguf", say=reporter.say)  # fmt: skip
    with open_gguf(
        gguf, context=int(manifest["evaluation"]["context"]), width=config["width"],
        kv_dtype=config["kv_dtype"], threads=engine["threads"], gpu_layers=config["gpu_layers"],
    ) as model:  # fmt: skip
        here = model.describe()
        store = JsonLines.open(folder / "base.completions.jsonl")
        evaluation.decode(model, encoder, items, budget, store, "decode base", reporter)
    done = evaluation.completions(store, items, budget)
    stored = {row["item_id"]: row for row in document["rows"] if row["arm"] == BASE}
    differing = [_parted(stored[item.key], done[item.key]) for item in items
                 if list(done[item.key].ids) != stored[item.key]["ids"]]  # fmt: skip
    return {
        "n": len(items),
        "identical": len(items) - len(differing),
        "differing": differing,
        "engine_differs": sorted(key for key in here.keys() | engine.keys()
                                 if here.get(key) != engine.get(key)),
    }  # fmt: skip


def _parted(stored: Mapping[str, Any], here: Completion) -> dict[str, Any]:
    pairs = enumerate(zip(stored["ids"], here.ids, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(stored["ids"]), len(here.ids)))
    return {"item_id": stored["item_id"], "near_ties": stored["near_ties"], "from_token": at}
