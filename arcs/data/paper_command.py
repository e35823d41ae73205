"""What ``threearc data import paper`` does: five files, their licence, and what was found."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arcs.data import report
from arcs.data.kinds import KINDS
from arcs.data.paper import Imported, import_paper
from arcs.data.sets import meta_path
from arcs.data.statistics import near_pairs
from arcs.data.writing import SCHEMA, jsonl, write_folder
from arcs.progress import Reporter
from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.download import download as fetch
from arcs.reproduction.files import COMMIT, FILES, REPOSITORY, locate
from arcs.runs import canonical_json
from evals.items.recorded import RecordedLabel, RecordedResponse
from evals.overlap import normalised
from models.cache import cache_root
from models.errors import UserError

LICENCE = "MIT, (c) 2026 Tinman Labs"
AUTHORS: Mapping[str, str] = {
    "step16": "Gemma-4-26B-A4B, for tinmanlabsl/disposition-distillation",
    "fresh": "DeepSeek-V3.2-exp, for tinmanlabsl/disposition-distillation",
    "mcas": "tinmanlabsl/disposition-distillation",
}
"""Who wrote the prompts of each set, as far as the paper's code tells."""
REPORT = "import.json"
LEFT: Mapping[str, str] = {
    "alpha_sweep.json": "decodes of mixed logits, whose prompts are not published",
    "eval_baseline.json: sanity": "the first 500 characters of ten of its answers",
    "eval_full_ddv2.json: sanity": "the first 500 characters of ten of its answers",
    "eval_*.json: issues": "the verifier's messages; their counts are labels",
    "phase0_audit/mcas_details.json: bitnet_scores": "null",
    "smollm_*_features.npz": "features, no judgements",
    "path_b_*, pca_rank, *_probe*, v1_full_v2, eval_results": "aggregates",
}


def start(folder: Path | None, *, download: bool, out: Path, as_json: bool) -> None:
    """Import the paper's prompts, answers and labels into the new folder ``out``."""
    artifacts = Artifacts(_folder(folder, download))
    made = import_paper(artifacts)
    files = {f"paper_{name}.jsonl": jsonl(records) for name, records in made.prompts.items()}
    files["paper_responses.jsonl"] = jsonl(made.responses)
    files["paper_labels.jsonl"] = jsonl(made.labels)
    document = {
        "schema": SCHEMA,
        "counts": {
            **{name: len(found) for name, found in made.prompts.items()},
            "responses": len(made.responses),
            "labels": len(made.labels),
        },
        **findings(made),
        "sources": made.sources,
    }
    described = {meta_path(Path(name)).name: _meta(name, text) for name, text in files.items()}
    files |= described | {REPORT: canonical_json(document).encode()}
    licence = locate(artifacts.folder, "LICENSE")
    if licence is not None:
        files["LICENSE"] = licence.read_bytes()  # its notice goes with the texts
    write_folder(out, files)
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        report.to_terminal(report.paper(document, str(out)))


def _folder(folder: Path | None, download: bool) -> Path:
    if (folder is None) != download:
        raise UserError("give the folder of the paper's files, or --download: one of them")
    if folder is None:
        kept = fetch(cache_root() / "paper-artifacts", instead="give the folder of the files")
        Reporter().say(f"The paper's files are in {kept}")
        return kept
    return existing(folder)


def existing(folder: Path) -> Path:
    """The folder; raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return folder


def _meta(name: str, content: bytes) -> bytes:
    described = {
        "schema": SCHEMA,
        "author": AUTHORS.get(name.removeprefix("paper_").removesuffix(".jsonl")),
        "licence": LICENCE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "use": "evaluation only: never train on it",
    }
    return canonical_json(described).encode()


def findings(made: Imported) -> dict[str, Any]:
    """What a reader must know: duplicates, labels without a value, files that differ."""
    published = {file.name: file.sha256 for file in FILES}
    texts = Counter(normalised(one.response) for one in made.responses)
    return {
        "changed_files": [n for n, sha256 in made.sources.items() if published[n] != sha256],
        "duplicate_prompts": {
            name: len(found) - len({normalised(one.prompt) for one in found})
            for name, found in made.prompts.items()
        },
        "near_duplicate_prompts": {
            name: [[p.first, p.second, p.similarity] for p in near_pairs(found, KINDS["prompt"])]
            for name, found in made.prompts.items()
        },
        "responses_by_file": dict(Counter(_file_of(one) for one in made.responses)),
        "repeated_responses": sum(texts.values()) - len(texts),
        "labels_by_instrument": {
            name: dict(sorted(counts.items())) for name, counts in _by_instrument(made.labels)
        },
        "labels_without_value": [
            {"id": one.id, "status": one.status, "detail": one.detail}
            for one in made.labels
            if one.status != "ok"
        ],
        "not_imported": dict(LEFT),
        "repository": REPOSITORY,
        "commit": COMMIT,
    }


def _file_of(record: RecordedResponse) -> str:
    return record.source.file if record.source else ""


def _by_instrument(labels: Sequence[RecordedLabel]) -> Iterator[tuple[str, Counter[str]]]:
    counts: dict[str, Counter[str]] = {}
    for one in labels:
        counts.setdefault(one.instrument, Counter())[one.status] += 1
    yield from sorted(counts.items())
