"""Results of evalplus: ``*_eval_results.json`` and the sample files beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arcs.audits.readers.source import (
    candidates,
    filled_text,
    flatten,
    read_json,
    read_json_lines,
    require_distinct,
)
from arcs.audits.results import Instrument, Item, LabelKind, LabelValue, Results, ResultSet
from models.errors import UserError

FORMAT = "evalplus results"
ENDING = "eval_results.json"
STATUSES = ("pass", "fail", "timeout")
IDENTIFIER = re.compile(r"(?P<model>.+)_(?P<backend>[a-z]+)_temp_(?P<temperature>[\d.]+)")
"""How evalplus names the files of a run."""
SAMPLE_KEYS = ({"task_id", "solution"}, {"task_id", "completion"})


def is_results(path: Path) -> bool:
    """Whether a file is an evaluation result, by its name and content."""
    if not path.name.endswith(ENDING):
        return False
    document = read_json(path)
    return isinstance(document, dict) and isinstance(document.get("eval"), dict)


def is_samples(path: Path) -> bool:
    """Whether a file holds samples alone: task_id with a solution or completion."""
    if path.suffix != ".jsonl" or path.name.endswith(".raw.jsonl"):
        return False
    with path.open("rb") as stream:
        head = stream.readline(1 << 24)
    if b"task_id" not in head:
        return False
    return set(read_json_lines(path)[0][1]) in SAMPLE_KEYS


def read(path: Path) -> Results:
    """Read one result or sample file, or every one of a folder: one set a file.

    A sample file with results beside it is not read again. Raises UserError for files of
    another shape.
    """
    files = candidates(path)
    results = [file for file in files if is_results(file)]
    judged = {_stem(file) for file in results}
    alone = [f for f in files if f.with_suffix("") not in judged and is_samples(f)]
    sets = [_judged(file) for file in results] + [_unjudged(file) for file in alone]
    used = {*results, *alone, *(s for stem in judged for s in (_raw(stem), _sanitised(stem)))}
    skipped = tuple(f"{file}: not an evalplus file" for file in files if file not in used)
    return Results(path, FORMAT, sets=tuple(sets), skipped=skipped)


def _stem(file: Path) -> Path:
    """Path of the samples without their suffix; of a folder of samples, the folder."""
    name = file.name.removesuffix(ENDING).removesuffix("_")
    return file.parent / name if name else file.parent


def _raw(stem: Path) -> Path:
    return stem.with_name(stem.name + ".raw.jsonl")


def _sanitised(stem: Path) -> Path:
    return stem.with_name(stem.name + ".jsonl")


def _judged(file: Path) -> ResultSet:
    document = read_json(file)
    raw = _raw_texts(_raw(_stem(file)))
    try:
        items = tuple(
            _item(task, number, entry, raw, several=len(entries) > 1)
            for task, entries in _entries(document["eval"])
            for number, entry in enumerate(entries)
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{file}: not the shape of evalplus results ({error!r})") from None
    what = "raw output" if raw else "sanitised program"
    settings = flatten({"data_set_hash": document.get("hash"), "response": what})
    return _set(file, items, _instruments(document.get("hash")), settings)


def _entries(evaluated: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Samples of every task; older files hold lists of [status, details] for base and plus."""
    for task, found in evaluated.items():
        if isinstance(found, list):
            yield task, found
            continue
        plus = found.get("plus") or [None] * len(found["base"])
        yield (
            task,
            [
                {"base_status": base[0], "plus_status": extra[0] if extra else None}
                for base, extra in zip(found["base"], plus, strict=True)
            ],
        )


def _raw_texts(path: Path) -> Mapping[str, list[str]]:
    """Raw outputs by task, in the order in which evalplus numbers a task's samples."""
    found: dict[str, list[str]] = {}
    for number, record in read_json_lines(path) if path.is_file() else []:
        if not isinstance(record.get("task_id"), str):
            raise UserError(f"{path}:{number}: no task_id; not an evalplus sample")
        text = record.get("solution", record.get("completion"))
        if not isinstance(text, str):
            raise UserError(f"{path}:{number}: no solution or completion; not an evalplus sample")
        found.setdefault(record["task_id"], []).append(text)
    return found


def _item(
    task: str,
    number: int,
    entry: Mapping[str, Any],
    raw: Mapping[str, Sequence[str]],
    *,
    several: bool,
) -> Item:
    texts = raw.get(task, ())
    base, plus = entry["base_status"], entry.get("plus_status")
    labels: dict[str, LabelValue | None] = {
        "base_status": filled_text(base),
        "plus_status": filled_text(plus),
        "passed_base": None if base is None else base == "pass",
        # evalplus counts its own metric so: the original tests and the added ones.
        "passed_plus": None if base is None or plus is None else base == plus == "pass",
    }
    return Item(
        item_id=f"{task} sample {number}" if several else task,
        response=texts[number] if raw and number < len(texts) else _solution(entry, raw),
        group=task if several else None,
        labels=labels,
    )


def _solution(entry: Mapping[str, Any], raw: Mapping[str, Sequence[str]]) -> str | None:
    """Return the sanitised program, unless other items of the set have raw outputs."""
    return None if raw else entry.get("solution")


def _instruments(data_set: str | None) -> dict[str, Instrument]:
    judge = "evalplus tests" if data_set is None else f"evalplus tests, data set {data_set}"
    kinds = {"passed_base": LabelKind.PASS, "passed_plus": LabelKind.PASS}
    classes = {
        name: Instrument(name, LabelKind.CLASS, classes=STATUSES, judge=judge)
        for name in ("base_status", "plus_status")
    }
    return {
        **classes,
        **{name: Instrument(name, kind, judge=judge) for name, kind in kinds.items()},
    }


def _unjudged(file: Path) -> ResultSet:
    """Samples that were not evaluated: texts without labels."""
    texts = _raw_texts(file)
    items = tuple(
        Item(
            item_id=f"{task} sample {number}" if len(found) > 1 else task,
            response=text,
            group=task if len(found) > 1 else None,
        )
        for task, found in texts.items()
        for number, text in enumerate(found)
    )
    return _set(file, items, {}, {})


def _set(
    file: Path,
    items: tuple[Item, ...],
    instruments: Mapping[str, Instrument],
    settings: Mapping[str, str],
) -> ResultSet:
    if not items:
        raise UserError(f"{file}: no samples in it; nothing to audit")
    require_distinct(items, str(file))
    stem = _stem(file).name.removesuffix(".jsonl").removesuffix("-sanitized")
    match = IDENTIFIER.fullmatch(stem)
    named = match.groupdict() if match else {}
    arm = str(named.pop("model", stem)).replace("--", "/")
    task = items[0].item_id.split("/")[0]
    return ResultSet(
        name=f"{task} {arm}",
        source=file,
        items=items,
        instruments=instruments,
        arm=arm,
        task=task,
        settings={**settings, **named},
    )
