"""Runs of ``arc1`` and ``eval`` in a capsule: every answer at the largest n_predict, and what its
tests said.

Replayed here: each claim's number from the stored outcomes, the labels of a sample (its programs
run again in this machine's sandbox), and the answers of the base, and of edits whose adapter is
given, to the sampled problems (decoded again in the fixed-width mode: no neighbour decides).
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
from arcs.capsules.answers import Pair, compared
from arcs.evaluate.config import as_begun, conditions_of, parse
from arcs.evaluate.decoding import Arm, reference_of
from arcs.evaluate.prefix import template_prefix
from arcs.progress import Reporter
from arcs.report.stored import StoredRun
from arcs.runs import METRICS, JsonLines
from backends.interface import GREEDY, Completion, Sampling
from backends.lora import adapter_sha256
from evals.benchmarks import Benchmark, load_benchmark
from evals.humaneval.execution import Limits
from evals.humaneval.extraction import extract
from evals.humaneval.outcomes import Outcome
from evals.humaneval.prompts import PromptStyle
from evals.humaneval.sandbox.detect import detect_level
from evals.statistics import mcnemar_exact, paired_counts
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.fingerprint import file_sha256
from models.store import cache_root, prepare

ARC1, EVAL = "arc1", "eval"
KINDS = (ARC1, EVAL)
ITEMS = "items.jsonl"


@dataclass(frozen=True)
class _Budget:
    """As :class:`arcs.arc1.evaluation.Settings`."""

    n_predict: tuple[int, ...]
    prompt_style: PromptStyle


def contents(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Claims, arms and rows. Raises UserError for a run that is not finished, or cannot be held."""
    kind, config = str(manifest["arc"]), manifest["config"]
    if config.get("samples", 1) > 1 or config.get("fast"):
        raise UserError(f"{run}: capsules hold one answer a problem, in the repeatable mode")
    needed = [run / METRICS, run / ITEMS]
    _require(run, kind, needed)
    stored = StoredRun(run)
    metrics = stored.metrics or {}
    arms = _arms_of_arc1(manifest) if kind == ARC1 else _arms_of_eval(manifest, metrics)
    first = int(config["n_predict"][-1])
    middle = "" if kind == ARC1 else f".{first}"
    decoded = {}
    for name in arms:
        path = run / f"{name}{middle}.completions.jsonl"
        _require(run, kind, [path])
        needed.append(path)
        decoded[name] = {row["item_id"]: row for row in stored.lines(path.name)}
    n = metrics["primary_n_predict"] if kind == ARC1 else metrics["n_predict"][-1]
    rows = []
    for row in stored.lines(ITEMS):
        if row["n_predict"] == n:
            own = decoded[row["arm"]][row["item_id"]]
            rows.append({**row, **{key: own[key] for key in ("prompt_sha", "ids", "near_ties")}})
    return {
        "files": {path.name: file_sha256(path) for path in needed},
        "claims": _claims(kind, metrics, arms),
        "arms": arms,
        "n_predict": n,
        "decoded_to": first,
        "rows": rows,
    }


def _require(run: Path, kind: str, paths: Sequence[Path]) -> None:
    lacking = [path.name for path in paths if not path.is_file()]
    if lacking:
        raise UserError(f"{run}: no {lacking[0]}; finish the run with threearc {kind} --run {run}")


def _arms_of_arc1(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What each arm was decoded with (quantisation, engine, adapter), and is compared with."""
    adapters = {evaluation.BASE: None, TRAINED: manifest["adapter"]["sha256"]}
    if "adapter_sft" in manifest:
        adapters[evaluation.SFT] = manifest["adapter_sft"]["sha256"]
    return {
        name: {
            "quantisation": manifest["evaluation"]["quantisation"],
            "context": int(manifest["evaluation"]["context"]),
            "engine": manifest[f"engine_{name}"],
            "adapter_sha256": sha, "against": None if sha is None else BASE, "remade": None,
        }
        for name, sha in adapters.items()
    }  # fmt: skip


def _arms_of_eval(manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    config = parse(as_begun(manifest["config"]))
    found = {}
    for quantisation in config.quantisations:
        for one in conditions_of(config):
            arm = Arm(quantisation, one)
            against = metrics["quantisations"][quantisation][one.name]["against"]
            reference = reference_of(conditions_of(config), one) if against else None
            engine = manifest[f"engine.{arm.name}.{config.n_predict[-1]}"]
            merged = one.adapter is not None and config.adapter_mode == "merged"
            found[arm.name] = {
                "quantisation": quantisation, "engine": engine,
                "context": engine["context_per_sequence"],
                "adapter_sha256": manifest["adapters"][one.name]["sha256"] if one.adapter else None,
                "against": Arm(quantisation, reference).name if reference else None,
                "remade": "scaled heads" if one.scales is not None else
                "merged weights" if merged else None,
            }  # fmt: skip
    return found


def _claims(
    kind: str, metrics: Mapping[str, Any], arms: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """By the edited arm."""
    if kind == ARC1:
        return {TRAINED: metrics["claim"]}
    config = parse(metrics["config"])
    return {
        Arm(q, one).name: metrics["quantisations"][q][one.name]["comparison"]["claim"]
        for q in config.quantisations
        for one in conditions_of(config)
        if arms[Arm(q, one).name]["against"] is not None
    }


def verify(
    document: Mapping[str, Any],
    model: str | None,
    adapters: Sequence[Path],
    sample: int,
    seed: int,
    weak: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """Everything that can be said. Raises UserError for another model, adapter or benchmark."""
    manifest = document["manifest"]
    config = manifest["config"]
    benchmark = _benchmark(config, manifest["evaluation"])
    given = given_adapters(document["arms"], adapters)
    directory = prepare(model or config["model"], say=reporter.say)
    if directory.fingerprint != manifest["model"]["fingerprint"]:
        raise UserError(
            f"--model {model or config['model']}: its weights are not the capsule's; give that "
            "model"
        )
    encoder = ChatEncoder(directory, thinking=config["thinking"])
    tasks = list(dict.fromkeys(row["item_id"] for row in document["rows"]))
    drawn = np.random.default_rng(seed).permutation(len(tasks))[:sample].tolist()
    chosen = [tasks[place] for place in sorted(drawn)]
    items = _items(benchmark, encoder, config["prompt_style"], chosen, document["rows"])
    with tempfile.TemporaryDirectory() as folder:
        labels = _labels(document, items, config["prompt_style"], Path(folder), weak, reporter)
        answers = _answers(document, given, items, encoder, directory, Path(folder), reporter)
    return {
        "sample": {"n": len(chosen), "of": len(tasks), "seed": seed, "items": chosen},
        "numbers": [_number(document, arm) for arm in document["claims"]],
        "labels": labels,
        "answers": answers,
    }


def given_adapters(arms: Mapping[str, Any], adapters: Sequence[Path]) -> dict[str, Path]:
    """Hash -> adapter. Raises UserError for one that no arm of the capsule was made with."""
    known = {one["adapter_sha256"] for one in arms.values()} - {None}
    found = {}
    for path in adapters:
        sha = adapter_sha256(path)
        if sha not in known:
            raise UserError(f"--adapter {path}: no arm of the capsule was made with it (sha-256 "
                            f"{sha[:12]})")  # fmt: skip
        found[sha] = path
    return found


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


def _number(document: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Difference and McNemar p from the stored outcomes, exactly as stated."""
    claim, against = document["claims"][arm], document["arms"][arm]["against"]
    passes: dict[str, dict[str, bool | None]] = {against: {}, arm: {}}
    for row in document["rows"]:
        if row["arm"] in passes:
            outcome = Outcome(row["outcome"])
            missing = outcome is Outcome.INFRASTRUCTURE_ERROR
            passes[row["arm"]][row["item_id"]] = None if missing else outcome is Outcome.PASSED
    ids = sorted(passes[against])
    counts = paired_counts([passes[against][one] for one in ids], [passes[arm][one] for one in ids])
    p = mcnemar_exact(counts.gained, counts.lost)
    same = claim["delta"] is not None and abs(counts.delta - claim["delta"]) < 1e-12 and (
        abs(p - claim["p_value"]) < 1e-12
    )  # fmt: skip
    return {
        "quantity": f"difference of pass@1 at n_predict {document['n_predict']}, {arm}",
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
    given: Mapping[str, Path],
    items: Sequence[problems.Item],
    encoder: ChatEncoder,
    directory: ModelDirectory,
    folder: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Answers decoded again with the run's own settings of llama.cpp, arm by arm."""
    pairs: list[Pair] = []
    skipped: dict[str, str] = {}
    differs: set[str] = set()
    for name, arm in document["arms"].items():
        if arm["remade"] is not None:
            skipped[name] = f"its {arm['remade']} are not made again here"
        elif arm["adapter_sha256"] is not None and arm["adapter_sha256"] not in given:
            skipped[name] = f"its adapter (sha-256 {arm['adapter_sha256'][:12]}) was not given"
        else:
            adapter = given.get(arm["adapter_sha256"] or "")
            done, here = _decoded(document, name, adapter, items, encoder, directory, folder,
                                  reporter)  # fmt: skip
            differs |= {key for key in here if here[key] != arm["engine"].get(key)}
            stored = {row["item_id"]: row for row in document["rows"] if row["arm"] == name}
            pairs += [
                Pair(item.key, stored[item.key]["ids"], done[item.key].ids,
                     stored[item.key]["near_ties"], name) for item in items
            ]  # fmt: skip
    found = compared(pairs, exact=False, not_replayed=skipped)
    return {**found, "engine_differs": sorted(differs)}


def _decoded(
    document: Mapping[str, Any],
    name: str,
    adapter: Path | None,
    items: Sequence[problems.Item],
    encoder: ChatEncoder,
    directory: ModelDirectory,
    folder: Path,
    reporter: Reporter,
) -> tuple[dict[str, Completion], dict[str, Any]]:
    """One arm's answers, and what decoded them."""
    from backends.llamacpp.adapter import convert_adapter
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.quantise import evaluation_gguf

    arm, config = document["arms"][name], document["manifest"]["config"]
    budget = _Budget((int(document["decoded_to"]),), config["prompt_style"])
    prefix, sampling, stops = _decoding(document, encoder)
    gguf = evaluation_gguf(directory, arm["quantisation"], cache_root() / "gguf", say=reporter.say)
    converted = None
    if adapter is not None:
        converted = folder / f"{name}.adapter.gguf"
        convert_adapter(adapter, directory, converted)
    with open_gguf(
        gguf, adapter=converted, context=arm["context"], width=config["width"],
        kv_dtype=config["kv_dtype"], threads=arm["engine"]["threads"],
        gpu_layers=config["gpu_layers"], prefix=prefix, logprobs=config.get("logprobs", False),
    ) as model:  # fmt: skip
        here = model.describe()
        store = JsonLines.open(folder / f"{name}.completions.jsonl")
        evaluation.decode(model, encoder, items, budget, store, f"decode {name}", reporter,
                          sampling=sampling, stops=stops)  # fmt: skip
    return evaluation.completions(store, items, budget), here


def _decoding(
    document: Mapping[str, Any], encoder: ChatEncoder
) -> tuple[tuple[int, ...], Sampling, tuple[str, ...]]:
    """Ids of the prefix that is computed once, how tokens are chosen, what ends an answer."""
    if document["kind"] == ARC1:
        return (), GREEDY, ()
    config = parse(as_begun(document["manifest"]["config"]))
    prefix = template_prefix(encoder, config.prompt_style) if config.shares_prefix else ()
    return prefix, config.sampling, config.stops
