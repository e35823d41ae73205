"""More fresh questions for a finished run: answered, read and labelled as its own were.

Nothing is fitted here: the training set and the probe stay the run's.
"""

from __future__ import annotations

from typing import Any

from arcs.arc3 import features, labelling, responses
from arcs.arc3.config import Arc3Config
from arcs.arc3.pipeline import More, prepare_run, read, write_labels
from arcs.arc3.questions import FRESH
from arcs.arc3.table import sides
from arcs.arc3.transcripts import transcripts
from arcs.judging.opening import JudgeOptions
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory
from arcs.transcripts import TRANSCRIPTS, write_transcripts


def run_more(
    config: Arc3Config, run: RunDirectory, reporter: Reporter, more: More
) -> dict[str, Any]:
    """Run or continue ``run``; returns what stands in its metrics.json.

    Raises UserError as a run of Arc 3, and as ``more.check``.
    """
    with run.timed("prepare"):
        prepared = prepare_run(config, run, reporter, more)
    found = read(config, run, prepared, reporter, more)
    with run.timed("label"):
        labels = labelling.label(config, found, run, prepared.gates, reporter, JudgeOptions())
    run.extend_manifest(labels=labels.identity)
    of = write_labels(run, found, labels)
    rows = features.read(features.path_of(run.path, FRESH))
    # a file without rows has no arrays either
    table = sides(found, labels, {FRESH: rows}) if rows.item_ids else {}
    write_transcripts(
        run.path / TRANSCRIPTS, transcripts(found, labels, table, None, None, config.budget)
    )
    manifest = run.manifest()
    metrics = {
        "schema_version": "threearc-arc3-more-1",
        "model": manifest["model"],
        "backend": manifest["backend"],
        "sets": {
            FRESH: {
                "answers": responses.summary(found),
                "labels": labelling.counts(list(of.values())),
                "without_features": len(rows.missing),
            }
        },
        "config": config.model_dump(mode="json"),
        "made_with": {
            **{k: v for k, v in manifest.items() if k not in ("config", "command", "arc")},
            "labels": labels.instrument,
            "delivery": labels.delivery,
        },
    }
    run.write_json(METRICS, metrics)
    return metrics
