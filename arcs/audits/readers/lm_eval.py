"""Sample files of lm-evaluation-harness, with the results file of the same date beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.audits.readers.labels import label_columns
from arcs.audits.readers.source import (
    candidates,
    constant,
    count_of,
    filled_text,
    flatten,
    read_json,
    read_json_lines,
    require_distinct,
    text_of,
)
from arcs.audits.results import Item, Reported, Results, ResultSet
from models.errors import UserError

FORMAT = "lm-evaluation-harness samples"
NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
OWN = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip
"""Keys of a sample that are not metrics."""
BUDGETS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
RUN_SETTINGS = (
    "model_source", "system_instruction_sha", "fewshot_as_multiturn", "chat_template_sha",
    "lm_eval_version", "transformers_version", "git_hash", "max_length",
)  # fmt: skip
CONFIG_SETTINGS = (
    "model", "model_args", "model_dtype", "model_revision", "model_sha", "gen_kwargs", "limit",
    "random_seed", "numpy_seed", "torch_seed", "fewshot_seed",
)  # fmt: skip
TASK_SETTINGS = ("versions", "n-shot", "task_hashes")

Row = tuple[int, dict[str, Any]]
"""Line number and sample."""


@dataclass(frozen=True)
class _File:
    path: Path
    task: str
    results: Mapping[str, Any]


def is_samples(path: Path) -> bool:
    """Whether a file has the name of a sample file."""
    return NAME.fullmatch(path.name) is not None


def read(path: Path) -> Results:
    """Read one sample file, or every one of a folder: one set a model, task and filter.

    Raises UserError with file and line for malformed samples, and for a document that is there
    twice under one filter.
    """
    sets: list[ResultSet] = []
    skipped: list[str] = []
    for file in candidates(path):
        if is_samples(file):
            sets.extend(_sets(_open(file), skipped))
        elif not file.name.startswith("results_"):
            skipped.append(f"{file}: not a sample file")
    return Results(path, FORMAT, sets=tuple(sets), skipped=tuple(skipped))


def _open(path: Path) -> _File:
    match = NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path}: not called samples_TASK_DATE.jsonl")
    beside = sorted(path.parent.glob(f"*_{match['date']}.json"))
    document = read_json(beside[0]) if len(beside) == 1 else {}
    return _File(path, match["task"], document if isinstance(document, dict) else {})


def _sets(file: _File, skipped: list[str]) -> Iterator[ResultSet]:
    by_filter: dict[str | None, list[Row]] = {}
    for number, sample in read_json_lines(file.path):
        if "doc_id" not in sample or "resps" not in sample:
            raise UserError(f"{file.path}:{number}: no doc_id and resps; not a harness sample")
        by_filter.setdefault(filled_text(sample.get("filter")), []).append((number, sample))
    if not file.results:
        skipped.append(f"{file.path}: no results file of its date beside it; settings not known")
    for name, rows in by_filter.items():
        yield _set(file, name, rows, skipped, several=len(by_filter) > 1)


def _set(
    file: _File, filter_name: str | None, rows: Sequence[Row], skipped: list[str], *, several: bool
) -> ResultSet:
    columns, unread = _metrics(rows)
    if unread:
        skipped.append(f"{file.path}: metrics {', '.join(unread)} are not one number an item")
    instruments, labels = label_columns(columns, {}, str(file.path))
    items = tuple(
        _item(file.path, row, label)
        for row, label in zip(rows, labels or [{}] * len(rows), strict=True)
    )
    require_distinct(items, f"{file.path} (filter {filter_name})")
    task = f"{file.task}, {filter_name}" if several else file.task
    arm = _arm(file)
    return ResultSet(
        name=f"{task} {arm or file.path.parent.name}",
        source=file.path,
        items=items,
        instruments=instruments,
        arm=arm,
        task=task,
        n_predict=_n_predict(rows, file.path),
        settings={**_settings(file), **flatten({"filter": filter_name})},
        reported=tuple(_reported(file, filter_name)),
    )


def _metrics(rows: Sequence[Row]) -> tuple[dict[str, list[object]], list[str]]:
    """Metric -> values [n], and names of those that are not a number an item."""
    names = list(dict.fromkeys(
        name
        for _, sample in rows
        for name in (sample.get("metrics") or [key for key in sample if key not in OWN])
    ))  # fmt: skip
    columns = {name: [sample.get(name) for _, sample in rows] for name in names}
    scalar = {
        name: values
        for name, values in columns.items()
        if not any(isinstance(value, (list, dict)) for value in values)
    }
    return scalar, sorted(columns.keys() - scalar.keys())


def _item(path: Path, row: Row, labels: Mapping[str, Any]) -> Item:
    number, sample = row
    digest = filled_text(sample.get("doc_hash"))
    texts = _texts(sample)
    return Item(
        # With its hash: documents of one number differ where data sets or limits differ.
        item_id=f"{sample['doc_id']}:{digest[:16]}" if digest else str(sample["doc_id"]),
        prompt=_prompt(sample, f"{path}:{number}"),
        response=texts[0] if len(texts) == 1 else None,
        labels=labels,
    )


def _requests(sample: Mapping[str, Any]) -> list[list[Any]]:
    """Arguments of every request; newer files hold them as gen_args_0.arg_0."""
    arguments = sample.get("arguments") or []
    requests = list(arguments.values()) if isinstance(arguments, dict) else arguments
    return [list(one.values()) if isinstance(one, dict) else list(one) for one in requests]


def _generation(sample: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Generation settings of a sample; None where choices were scored and nothing generated."""
    requests = _requests(sample)
    if not requests or len(requests[0]) < 2 or not isinstance(requests[0][1], dict):
        return None
    settings: Mapping[str, Any] = requests[0][1]
    return settings


def _texts(sample: Mapping[str, Any]) -> list[str]:
    """Generated texts; none where choices were scored."""
    if _generation(sample) is None:
        return []
    nested = [one if isinstance(one, list) else [one] for one in sample["resps"]]
    return [text for one in nested for text in map(text_of, one) if text is not None]


def _prompt(sample: Mapping[str, Any], where: str) -> str | None:
    requests = _requests(sample)
    if not requests or not requests[0]:
        return None
    first = requests[0][0]
    # Chat prompts of API models are a list of one JSON text.
    text = first[0] if isinstance(first, list) and len(first) == 1 else first
    if isinstance(text, (dict, list)):
        raise UserError(f"{where}: its first argument is no prompt text; not a harness sample")
    return text_of(text)


def _n_predict(rows: Sequence[Row], path: Path) -> int | None:
    """Return the budget that every request states; None where it was left to the model's code."""
    stated = []
    for number, sample in rows:
        settings = _generation(sample) or {}
        value = next((settings[name] for name in BUDGETS if name in settings), None)
        stated.append(count_of(value, f"{path}:{number}, max_gen_toks"))
    found: int | None = constant(stated)
    return found


def _arm(file: _File) -> str | None:
    """Model and adapter, from the arguments that the model was opened with."""
    given = file.results.get("config", {}).get("model_args")
    if isinstance(given, str):
        given = dict(part.split("=", 1) for part in given.split(",") if "=" in part)
    arguments = given if isinstance(given, dict) else {}
    names = [str(arguments[key]) for key in ("pretrained", "peft", "delta") if arguments.get(key)]
    return " + ".join(names) if names else filled_text(file.results.get("model_name"))


def _settings(file: _File) -> dict[str, str]:
    config = file.results.get("config", {})
    return {
        **flatten({name: file.results.get(name) for name in RUN_SETTINGS}),
        **flatten({name: config.get(name) for name in CONFIG_SETTINGS}),
        **flatten({n: (file.results.get(n) or {}).get(file.task) for n in TASK_SETTINGS}),
    }


def _reported(file: _File, filter_name: str | None) -> Iterator[Reported]:
    """Metrics "name,filter" of the task; a standard error beside one is its interval."""
    found = (file.results.get("results") or {}).get(file.task) or {}
    for key, value in found.items():
        name, comma, its_filter = key.partition(",")
        if not comma or its_filter != (filter_name or "none") or name.endswith("_stderr"):
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            error = found.get(f"{name}_stderr,{its_filter}")
            yield Reported(name, float(value), isinstance(error, (int, float)))
