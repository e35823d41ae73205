"""What ``threearc data`` does: show, stats, validate, split, mix, check-overlap."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arcs.data import report
from arcs.data.kinds import Kind, key_of, kind_named
from arcs.data.lines import Contents, Problem, read
from arcs.data.mixing import MIXED, mix, part
from arcs.data.overlaps import overlaps
from arcs.data.sets import BUILT_IN, DataSet, generator_not_independent, open_set
from arcs.data.splitting import Plan, Split, split
from arcs.data.statistics import statistics
from arcs.data.style import MAX_LENGTH, style, token_lengths
from arcs.data.writing import SCHEMA, write_folder
from arcs.runs import canonical_json
from models.errors import UserError

MANIFEST = "split.json"
SHOWN = 3


def show(
    name: str | None, *, kind: str | None, item: str | None, limit: int | None, as_json: bool
) -> None:
    """Print a table of all built-in sets, or the records of one set."""
    if name is None:
        if item is not None or limit is not None or kind is not None:
            raise UserError("--id, --limit and --as belong to one set: name it")
        rows = [_row(open_set(one)) for one in BUILT_IN]
        _print({"schema": SCHEMA, "sets": rows}, as_json, lambda: report.table(rows))
        return
    found = open_set(name, kind)
    records = _chosen(found, item, limit if as_json or limit is not None else SHOWN)
    document = {
        "schema": SCHEMA,
        **_row(found),
        "notes": list(found.notes),
        "generator_not_independent": {
            other: generator_not_independent(name, other) for other in BUILT_IN if other != name
        },
        "records": [record.model_dump(mode="json", by_alias=True) for record in records],
    }
    more = 0 if item is not None else len(found.records) - len(records)
    _print(document, as_json, lambda: report.records(document, more))


def stats(
    name: str, *, kind: str | None, model: str | None, max_length: int | None, as_json: bool
) -> None:
    """Print what a set looks like in numbers; of training data also what it would teach.

    ``model``: whose tokenizer counts tokens; None: they are not counted.
    """
    found = open_set(name, kind)
    document = {
        "schema": SCHEMA, "name": found.name, "sha256": found.contents.sha256,
        **statistics(found.records, found.kind).to_json(),
    }  # fmt: skip
    if found.kind.name in MIXED and max_length is not None and model is None:
        raise UserError(
            f"--max-length {max_length}: it is counted in a model's tokens; give --model too"
        )
    if found.kind.name in MIXED:
        document |= {"style": style(found.records).to_json(), "tokens": None}
        if model is not None:
            document["tokens"] = _tokens(found, model, max_length or MAX_LENGTH)
    elif model is not None or max_length is not None:
        raise UserError(f"--model, --max-length: only training data has them, not {name}")
    _print(document, as_json, lambda: report.numbers(document))


def validate(path: Path, *, kind: str | None, as_json: bool) -> None:
    """Print every bad line of a file, or of the JSONL files of a folder; exit 1 for any."""
    chosen = None if kind is None else kind_named(kind)
    from arcs.teachers.checking import files_of, is_generated, problems_of

    generated = is_generated(path)
    found = [_checked(file, chosen) for file in (files_of(path) if generated else _files(path))]
    problems = [problem for _, listed in found for problem in listed]
    if generated and not problems:
        problems = list(problems_of(path))
    document = {
        "schema": SCHEMA,
        "files": [report.file_row(contents, listed) for contents, listed in found],
        "problems": [
            {"file": one.file, "line": one.line or None, "what": one.what} for one in problems
        ],
        "bad_lines": len({(one.file, one.line) for one in problems}),
    }
    _print(document, as_json, lambda: report.checked(document))
    if problems:
        sys.exit(1)


def mix_sets(
    names: Sequence[str], *, seed: int, out: Path, one_per_prompt: bool, as_json: bool
) -> None:
    """Write a mixture of training sets and say what is in it."""
    made = mix([part(one) for one in names], seed=seed, out=out, one_per_prompt=one_per_prompt)
    document = {"schema": SCHEMA, **made}
    _print(document, as_json, lambda: report.mixed(document))


def check_overlap(names: Sequence[str], *, kind: str | None, as_json: bool) -> None:
    """Print what the sets share; exit 1 for anything."""
    if len(names) < 2:
        raise UserError("check-overlap: name at least two sets or files")
    twice = next((one for i, one in enumerate(names) if one in names[:i]), None)
    if twice is not None:
        raise UserError(f"check-overlap: {twice} is named twice")
    found = overlaps([open_set(name, kind) for name in names])
    document = {
        "schema": SCHEMA,
        "sets": list(names),
        "overlaps": [one.to_json() for one in found],
    }
    _print(document, as_json, lambda: report.shared(document))
    if found:
        sys.exit(1)


def make_split(name: str, plan: Plan, *, kind: str | None, out: Path, as_json: bool) -> None:
    """Write the parts of a set and their manifest into the new folder ``out``."""
    plan.check()
    found = open_set(name, kind)
    made = split(found.records, found.kind, plan)
    files = {f"{part}.jsonl": _part(found.contents, made, part) for part in plan.names}
    document = _manifest(found, plan, made, files)
    files[MANIFEST] = canonical_json(document).encode()
    write_folder(out, files)
    _print(document, as_json, lambda: report.parts(document, str(out)))


def _tokens(found: DataSet, model: str, max_length: int) -> dict[str, Any]:
    from models.chat import ChatEncoder
    from models.store import prepare

    directory = prepare(model)
    encoder = ChatEncoder(directory)
    return asdict(token_lengths(found.records, encoder, directory.name, max_length))


def _row(found: DataSet) -> dict[str, Any]:
    return {
        "name": found.name,
        "n": len(found.records),
        "kind": found.kind.name,
        "what": found.kind.what,
        "author": found.author,
        "licence": found.licence,
        "sha256": found.contents.sha256,
        "path": str(found.contents.path),
        "card": None if found.card is None else str(found.card),
    }


def _chosen(found: DataSet, item: str | None, limit: int | None) -> Sequence[Any]:
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: at least 1 is needed")
    if item is None:
        return found.records[:limit]
    chosen = [record for record in found.records if key_of(record) == item]
    if not chosen:
        examples = ", ".join(key_of(record) for record in found.records[:3])
        raise UserError(f"--id {item}: {found.name} has no such record; it has {examples}, ...")
    return chosen


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob("*.jsonl"))
        if not found:
            raise UserError(f"{path}: no *.jsonl file in this folder")
        return found
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return [path]


def _checked(path: Path, kind: Kind | None) -> tuple[Contents | None, Sequence[Problem]]:
    try:
        contents = read(path, kind)
    except UserError as error:  # one file that cannot be read does not hide the others
        what = str(error).removeprefix(f"{path}: ")
        return None, [Problem(str(path), 0, what)]
    return contents, contents.problems


def _part(contents: Contents, made: Split, part: str) -> bytes:
    """A part's own lines, to the byte, in the order of the file."""
    pairs = zip(contents.records, contents.raw, strict=True)
    lines = [raw.rstrip("\r") for record, raw in pairs if made.where[key_of(record)] == part]
    return "".join(line + "\n" for line in lines).encode()


def _manifest(
    found: DataSet, plan: Plan, made: Split, files: Mapping[str, bytes]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "source": {
            "name": found.name, "sha256": found.contents.sha256, "records": len(found.records),
            "author": found.author, "licence": found.licence,
        },
        "kind": found.kind.name,
        "seed": plan.seed,
        "by": plan.by,
        "stratify": plan.stratify,
        "kept_together": made.groups,
        "notes": list(made.notes),
        "parts": {
            part: {
                "file": f"{part}.jsonl",
                "fraction": share,
                "records": len(made.ids(part)),
                "sha256": hashlib.sha256(files[f"{part}.jsonl"]).hexdigest(),
                "ids": made.ids(part),
            }
            for part, share in zip(plan.names, plan.fractions, strict=True)
        },
    }  # fmt: skip


def _print(document: Mapping[str, Any], as_json: bool, shown: Any) -> None:
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        report.to_terminal(shown())
