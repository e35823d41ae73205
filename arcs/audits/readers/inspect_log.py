"""Logs of inspect_ai, ``.eval`` and ``.json``, read with inspect_ai's own reader."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arcs.audits.readers.labels import infer
from arcs.audits.readers.source import candidates, filled_text, flatten, require_distinct
from arcs.audits.results import (
    Instrument,
    Item,
    LabelKind,
    LabelValue,
    Reported,
    Results,
    ResultSet,
)
from models.errors import UserError

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

FORMAT = "inspect_ai log"
GRADES: Mapping[str, float] = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""What inspect_ai's own metrics count its letter grades as (N: no answer)."""
UNREAD = {"events", "store", "timelines"}
SECRET = {"extra_headers", "extra_body"}
"""Settings of a request that may hold keys, which no report should show."""


def is_log(path: Path) -> bool:
    """Whether a file is a log, by its suffix or the beginning of its JSON."""
    if path.suffix == ".eval":
        return True
    if path.suffix != ".json":
        return False
    with path.open("rb") as stream:
        head = stream.read(4096).decode("utf-8", errors="ignore")
    return re.match(r'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:', head) is not None


def read(path: Path) -> Results:
    """Read one log, or every log of a folder: one set a log.

    Raises UserError without the inspect_ai package, for files it cannot read, and where no log
    holds a sample; logs without samples are otherwise left out with a note.
    """
    sets: list[ResultSet] = []
    notes: list[str] = []
    for file in candidates(path):
        if not is_log(file):
            notes.append(f"{file}: not an inspect_ai log")
            continue
        log = _load(file)
        if log.samples:
            sets.append(_set(file, log, log.samples))
        if log.status != "success" or not log.samples:
            notes.append(f"{file}: status {log.status}, {len(log.samples or [])} samples logged")
    if not sets:
        raise UserError(f"{path}: its logs hold no samples ({notes[0]}); log samples and run again")
    return Results(path, FORMAT, sets=tuple(sets), skipped=tuple(notes))


def _load(file: Path) -> EvalLog:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise UserError(
            f'{file}: inspect_ai logs are read with its package; pip install "threearc[logs]"'
        ) from None
    try:
        return read_eval_log(file, resolve_attachments="core", exclude_fields=UNREAD)
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: inspect_ai cannot read it ({why}); log it again") from None


def _set(file: Path, log: EvalLog, samples: Sequence[EvalSample]) -> ResultSet:
    repeated = any(sample.epoch > 1 for sample in samples)
    instruments, labels = _labels(log, samples)
    items = tuple(
        _item(sample, row, repeated=repeated) for sample, row in zip(samples, labels, strict=True)
    )
    require_distinct(items, str(file))
    n_predict = log.plan.config.max_tokens or log.eval.model_generate_config.max_tokens
    return ResultSet(
        name=f"{log.eval.task} {log.eval.model} ({file.name})",
        source=file,
        items=items,
        instruments=instruments,
        arm=log.eval.model,
        task=log.eval.task,
        n_predict=n_predict,
        settings=_settings(log),
        reported=tuple(_reported(log)),
    )


def _item(sample: EvalSample, labels: Mapping[str, LabelValue | None], *, repeated: bool) -> Item:
    output = sample.output
    # Providers of local models never set a reason: "unknown" is their default, not a reason.
    reason = output.choices[0].stop_reason if output.choices else "unknown"
    return Item(
        item_id=f"{sample.id} epoch {sample.epoch}" if repeated else str(sample.id),
        prompt=_prompt(sample),
        response=output.completion if output.choices else None,
        finish_reason=None if reason == "unknown" else reason,
        generated_tokens=output.usage.output_tokens if output.usage else None,
        group=str(sample.id) if repeated else None,
        labels=labels,
    )


def _prompt(sample: EvalSample) -> str | None:
    if isinstance(sample.input, str):
        return filled_text(sample.input)
    return filled_text("\n\n".join(f"{message.role}: {message.text}" for message in sample.input))


def _labels(
    log: EvalLog, samples: Sequence[EvalSample]
) -> tuple[dict[str, Instrument], list[dict[str, LabelValue | None]]]:
    """Instruments, and one mapping of labels a sample; samples that failed have none."""
    raw = [{} if sample.error else dict(_values(sample)) for sample in samples]
    names = list(dict.fromkeys(name for row in raw for name in row))
    instruments: dict[str, Instrument] = {}
    rows: list[dict[str, LabelValue | None]] = [{} for _ in samples]
    for name in names:
        kind, values = _grade([row.get(name) for row in raw])
        instruments[name] = _instrument(log, name, kind)
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return instruments, rows


def _values(sample: EvalSample) -> Iterator[tuple[str, object]]:
    """Label name and value; a score of several values gives "scorer.part" labels."""
    for name, score in (sample.scores or {}).items():
        if isinstance(score.value, Mapping):
            for part, value in score.value.items():
                yield f"{name}.{part}", value
        elif isinstance(score.value, (str, int, float, bool)):
            yield name, score.value


def _grade(values: Sequence[object]) -> tuple[LabelKind, tuple[LabelValue | None, ...]]:
    """Read letter grades as inspect_ai's metrics do, and other values as they are."""
    present = {value for value in values if filled_text(value) is not None}
    if present and present <= GRADES.keys():
        return infer([GRADES[str(v)] if v in present else None for v in values])
    return infer(values)


def _instrument(log: EvalLog, name: str, kind: LabelKind) -> Instrument:
    """Judge and prompt of a scorer, as far as its logged options say."""
    scorer = name.partition(".")[0]
    scorers = log.eval.scorers or []
    options = next((s.options or {} for s in scorers if s.name.split("/")[-1] == scorer), {})
    model = options.get("model")
    texts = [str(options[key]) for key in ("template", "instructions") if options.get(key)]
    prompt = "\n".join(texts)
    return Instrument(
        name,
        kind,
        judge=scorer if model is None else str(model),
        prompt_sha=hashlib.sha256(prompt.encode()).hexdigest() if prompt else None,
    )


def _settings(log: EvalLog) -> dict[str, str]:
    spec = log.eval
    generate = spec.model_generate_config.model_dump(exclude_none=True, exclude=SECRET)
    planned = log.plan.config.model_dump(exclude_none=True, exclude=SECRET)
    model_args = {name: value for name, value in spec.model_args.items() if "key" not in name}
    return {
        **flatten({"model": spec.model, "solver": spec.solver, "dataset": spec.dataset.name}),
        **flatten(model_args, "model_args."),
        **flatten({**generate, **planned}, "generate."),
        **flatten(spec.task_args, "task_args."),
        **flatten({"task_version": spec.task_version}),
        **flatten(spec.packages, "packages."),
        **flatten({"commit": spec.revision.commit if spec.revision else None}),
    }


def _reported(log: EvalLog) -> Iterator[Reported]:
    """Metrics of the log; those of a score that has a standard error count as with interval."""
    for score in log.results.scores if log.results else []:
        has_error = any(name in ("stderr", "std_err", "bootstrap_stderr") for name in score.metrics)
        for name, metric in score.metrics.items():
            if not name.endswith(("stderr", "std", "var")) and math.isfinite(metric.value):
                yield Reported(f"{score.name} {name}", float(metric.value), has_error)
