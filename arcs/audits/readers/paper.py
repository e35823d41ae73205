"""The files that the paper published, any of them, known by name or content.

What each file is: PAPER.md sections 5, 6 and 9. Nothing is read that only the paper's text
says, except what a judge saw of a response (section 6), the gates (5.4), the values given
for a failed judge (8.1) and the budget of the HumanEval harness (3.2): those are constants
of the paper's published scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from arcs.audits.readers import paper_arms, paper_numbers, paper_sets
from arcs.audits.readers.paper_files import Files
from arcs.audits.readers.source import candidates, read_json
from arcs.audits.results import Results
from models.errors import UserError

FORMAT = "paper artifacts"
T = TypeVar("T")

KEYS: Mapping[str, set[str]] = {
    "judge_v4_step16": {"params", "cert_distribution", "items"},
    "profile": {"summary", "samples"},
    "judged_gold": {"coverage", "labels"},
    "verifier": {"summary", "rows", "sanity"},
    "mcas_details": {"baseline_scores", "dd_fp16_scores", "prompts"},
    "eval_results": {"baseline_humaneval", "dd_fp16_humaneval"},
    "v1_full_v2": {"evaluation", "n_fresh_prompts"},
    "probe_multilayer": {"n_last_layers", "configs", "bar"},
    "smollm_factual_probe": {"step16_pos", "fresh_pos", "results"},
    "disposition_probe_sweep": {"axes", "cross_axis_oof_correlation", "gate"},
    "attribution": {"all_heads_ranked_by_cohen_d", "cohorts"},
    "alpha_sweep": {"alphas", "items"},
}
"""Kind -> keys that only a file of that kind has together."""
NAMED = (
    "humaneval_baseline.json", "humaneval_dd_fp16.json", "smollm_fresh_features.npz",
    "smollm_step16_features.npz",
)  # fmt: skip
"""Files whose content does not tell what they are."""
OUTSIDE: Mapping[str, str] = {
    "pca_rank.json": "ranks of activations; no audit uses them",
    "golden.json": "recomputed values, not results; threearc reproduce uses them",
}


def kinds_in(path: Path) -> dict[str, Path]:
    """Kind -> file of the paper's files at a path; empty where there are none.

    Raises UserError where two files are of one kind, and for a single file that is no JSON;
    of a folder, such files are left to :func:`read` to report.
    """
    found: dict[str, Path] = {}
    for file in candidates(path):
        kind = _kind(file) if file == path or _fault(file) is None else None
        if kind in found:
            raise UserError(
                f"{path}: {found[kind]} and {file} are the same file of the paper; keep one"
            )
        if kind is not None:
            found[kind] = file
    return found


def _fault(file: Path) -> str | None:
    """What keeps a JSON file from being read; None for other files."""
    try:
        if file.suffix == ".json":
            read_json(file)
    except UserError as error:
        return str(error)
    return None


def _kind(file: Path) -> str | None:
    if file.name in NAMED:
        return file.stem
    if file.suffix != ".json" or file.name in OUTSIDE:
        return None
    document = read_json(file)
    keys = document.keys() if isinstance(document, dict) else set()
    kind = next((kind for kind, needed in KEYS.items() if needed <= keys), None)
    return None if kind is None else _precise(kind, file, document)


def _precise(kind: str, file: Path, document: Mapping[str, Any]) -> str | None:
    """Tell apart files of one shape: by model, by what their items hold, else by name."""
    if kind == "judge_v4_step16":
        return kind if "coverage" in document["items"][0] else "judge_v4_fresh"
    if kind == "profile":
        model = str(document["summary"].get("tag", "retracted")).partition("_")[0]
        return f"profile_{model}" if "prompt_i" in document["samples"][0] else None
    if kind == "judged_gold":
        named = {"smollm": "smollm_fresh_gold", "v1": "gemma_fresh_gold"}
        return named.get(file.stem.partition("_")[0])
    if kind == "verifier":
        return f"verifier_{document['summary']['condition']}"
    if kind == "attribution":
        return f"attribution_{document['tag']}"
    return kind


def read(path: Path) -> Results:
    """Read the paper's files at a path, whichever of them are there.

    Raises UserError for a file that has not the shape of the published one, and where rows
    that belong together by position differ in number.
    """
    files = Files(kinds_in(path))
    return Results(
        path,
        FORMAT,
        sets=_all(files, paper_sets.BUILDERS + paper_arms.BUILDERS),
        probes=_all(files, paper_numbers.PROBES),
        rankings=_all(files, paper_numbers.RANKINGS),
        interventions=_all(files, paper_numbers.INTERVENTIONS),
        claims=_all(files, paper_numbers.CLAIMS),
        skipped=tuple(_skipped(path, files)),
    )


def _all(files: Files, builders: tuple[Callable[[Files], Iterator[T]], ...]) -> tuple[T, ...]:
    try:
        return tuple(one for builder in builders for one in builder(files))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UserError(
            f"{files.last}: not the shape of the paper's file of that kind ({error!r})"
        ) from None


def _skipped(path: Path, files: Files) -> Iterator[str]:
    read_ones = set(files.paths.values())
    for file in candidates(path):
        if file not in read_ones:
            reason = OUTSIDE.get(file.name, "not one of the files that are read")
            yield _fault(file) or f"{file}: {reason}"
