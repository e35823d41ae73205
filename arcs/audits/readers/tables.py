"""CSV, TSV, JSON, JSON lines and NPZ tables, with a map from our names to their columns."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arcs.audits.readers import arrays
from arcs.audits.readers.labels import infer, label_columns
from arcs.audits.readers.options import ReadOptions
from arcs.audits.readers.source import (
    candidates,
    count_of,
    filled_text,
    read_json,
    read_json_lines,
    read_text,
    require_distinct,
    require_same_length,
    text_of,
)
from arcs.audits.results import (
    Features,
    Instrument,
    Item,
    LabelKind,
    Results,
    ResultSet,
    Role,
)
from models.errors import UserError

FORMAT = "table"
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".npz")
ID_NAMES = ("item_id", "id", "task_id")
"""Names under which an item's id is looked for where no map names one."""
ITEM_FIELDS = (
    "item_id", "prompt", "response", "finish_reason", "generated_tokens", "topic", "group",
    "n_parts",
)  # fmt: skip
SET_FIELDS = ("arm", "task", "n_predict", "family", "role")
FIELDS = ITEM_FIELDS + SET_FIELDS
MAX_CLASSES = 12
"""A text column that nobody named is a label up to this many different values."""
METADATA = frozenset(
    (
        "model", "model_id", "model_name", "seed", "temperature", "top_p", "top_k", "epoch",
        "date", "time", "timestamp", "version", "error", "index", "row", "latency", "cost",
        "duration", "seconds", "url",
    )
)  # fmt: skip
"""Columns that nobody means as labels unless they say so."""
LONGEST_CSV_FIELD = 1 << 30


@dataclass(frozen=True)
class Table:
    """Columns of one file."""

    path: Path
    columns: Mapping[str, Sequence[object]]
    """Name -> values [n]."""
    places: Sequence[str]
    """[n] "file:line" of every row."""
    features: Features | None = None
    """Of an NPZ file; its ids are those of the rows."""


@dataclass(frozen=True)
class Declared:
    """What is known of a table from elsewhere: flags or an audit.toml."""

    name: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    features: Path | None = None
    feature_settings: Mapping[str, str] = field(default_factory=dict)
    arm: str | None = None
    task: str | None = None
    n_predict: int | None = None
    family: str | None = None
    role: Role | None = None


def read(path: Path, options: ReadOptions) -> Results:
    """Read one table, or every table of a folder.

    Raises UserError for what is wrong with a single table. Of a folder, files that are no
    tables are left out with a note, and it is an error where none is left.
    """
    declared = Declared(columns=options.columns)
    if path.is_file():
        sets, notes = read_sets(path, declared)
        return Results(path, FORMAT, sets=tuple(sets), skipped=tuple(notes))
    found: list[ResultSet] = []
    skipped: list[str] = []
    for file in candidates(path):
        try:
            sets, notes = read_sets(file, declared)
        except UserError as error:
            skipped.append(str(error))
            continue
        found.extend(sets)
        skipped.extend(notes)
    if not found:
        why = f"; first: {skipped[0]}" if skipped else ""
        raise UserError(f"{path}: nothing here that threearc audit can read{why}")
    return Results(path, FORMAT, sets=tuple(found), skipped=tuple(skipped))


def read_sets(path: Path, declared: Declared) -> tuple[list[ResultSet], list[str]]:
    """Return the sets of one table, one an arm, task, n_predict, family and role; and notes.

    Raises UserError for unknown columns, ids that are missing or there twice, malformed lines,
    values that are not of their kind, and parts of different length.
    """
    table = read_table(path)
    mapping = _mapping(table, declared)
    items = _items(table, mapping)
    labels, notes = _label_columns(table, mapping, declared)
    instruments, rows = label_columns(labels, declared.instruments, str(path))
    if rows:
        items = [replace(item, labels=row) for item, row in zip(items, rows, strict=True)]
    designs = _designs(table, mapping, declared)
    title = declared.name if len(designs) == 1 else None
    sets = [
        _make_set(table, replace(declared, name=title), instruments, design, [items[r] for r in rs])
        for design, rs in designs.items()
    ]
    return sets, notes


def read_table(path: Path) -> Table:
    """Return the columns of a file by its suffix. Raises UserError where it is no table."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _read_csv(path, "\t" if suffix == ".tsv" else None)
    if suffix in (".jsonl", ".ndjson"):
        records = read_json_lines(path)
        return _from_records(path, [r for _, r in records], [f"{path}:{n}" for n, _ in records])
    if suffix == ".json":
        return _from_json(path, read_json(path))
    if suffix == ".npz":
        return _from_npz(path)
    raise UserError(f"{path}: not a table; {', '.join(SUFFIXES)} are read")


@contextmanager
def _long_csv_fields() -> Iterator[None]:
    """Let CSV fields be as long as responses are; csv's own limit is 128 KiB."""
    before = csv.field_size_limit(LONGEST_CSV_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, delimiter: str | None) -> Table:
    text = read_text(path)
    first = text.split("\n", 1)[0]
    delimiter = delimiter or (";" if ";" in first and "," not in first else ",")
    rows: list[tuple[int, list[str]]] = []
    with _long_csv_fields():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            rows.extend((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise UserError(
                f"{path}:{reader.line_num}: malformed CSV ({error}); repair it"
            ) from None
    (_, header), body = rows[0], [(n, row) for n, row in rows[1:] if row]
    for number, row in body:
        if len(row) != len(header):
            raise UserError(
                f"{path}:{number}: {len(row)} fields where the header has {len(header)}; repair it"
            )
    _require_rows(path, header, len(body))
    columns = {name: [row[i] for _, row in body] for i, name in enumerate(header)}
    return Table(path, columns, [f"{path}:{number}" for number, _ in body])


def _require_rows(path: Path, header: Sequence[str], rows: int) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: two columns are called {twice[0]!r}; rename one")
    if not rows:
        raise UserError(f"{path}: has no rows; nothing to audit")


def _from_json(path: Path, document: object) -> Table:
    if isinstance(document, list) and all(isinstance(row, dict) for row in document):
        places = [f"{path}, item {number}" for number in range(1, len(document) + 1)]
        return _from_records(path, document, places)
    if (
        isinstance(document, dict)
        and document
        and all(isinstance(v, list) for v in document.values())
    ):
        require_same_length(path, {name: len(values) for name, values in document.items()})
        size = len(next(iter(document.values())))
        _require_rows(path, list(document), size)
        return Table(path, document, [f"{path}, item {n}" for n in range(1, size + 1)])
    raise UserError(f"{path}: not a table; a list of objects or an object of equal lists is needed")


def _from_records(path: Path, records: Sequence[dict[str, Any]], places: Sequence[str]) -> Table:
    """Rows of objects; what is nested gets a dotted name, what a row lacks is missing."""
    flat = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for row in flat for name in row))
    _require_rows(path, names, len(flat))
    return Table(path, {name: [row.get(name) for row in flat] for name in names}, places)


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _from_npz(path: Path) -> Table:
    loaded = arrays.load(path)
    columns: dict[str, Sequence[object]] = {
        n: v.tolist() for n, v in loaded.columns.items() if n not in arrays.ID_NAMES
    }
    features = None if loaded.x is None else arrays.features_of(loaded)
    ids = arrays.stored_ids(loaded) if features is None else features.item_ids
    if ids is not None:
        columns["item_id"] = ids
    size = len(next(iter(columns.values()), ()))
    _require_rows(path, list(columns), size)
    return Table(path, columns, [f"{path}, row {n}" for n in range(size)], features)


def _mapping(table: Table, declared: Declared) -> dict[str, str]:
    """Our names -> columns: what was said, then columns of our own names."""
    for name, column in declared.columns.items():
        _check_name(table.path, name)
        if column not in table.columns:
            there = ", ".join(list(table.columns)[:12])
            raise UserError(f"{table.path}: no column {column!r} for {name}; it has {there}")
    used = set(declared.columns.values())
    own = {name: name for name in FIELDS if name in table.columns and name not in used}
    found = {**own, **declared.columns}
    if "item_id" not in found:
        free = table.columns.keys() - used
        names = [name for name in ID_NAMES if name in free]
        if not names:
            there = ", ".join(list(table.columns)[:12])
            raise UserError(
                f"{table.path}: no item_id; say --columns item_id=NAME with one of {there}"
            )
        found["item_id"] = names[0]
    return found


def _check_name(path: Path, name: str) -> None:
    """Refuse what is nearly a field: it would quietly become a label."""
    near = [] if name in FIELDS else difflib.get_close_matches(name, FIELDS, 1, 0.85)
    if near:
        raise UserError(f"{path}: no field {name!r}; {near[0]!r} is meant, or rename the label")


def _items(table: Table, mapping: Mapping[str, str]) -> list[Item]:
    def column(name: str) -> Sequence[object]:
        return table.columns[mapping[name]] if name in mapping else [None] * len(table.places)

    rows = zip(*(column(name) for name in ITEM_FIELDS), table.places, strict=True)
    return [_item(*row) for row in rows]


def _item(*row: object) -> Item:
    item_id, prompt, response, finish, tokens, topic, group, parts, where = row
    name = filled_text(item_id)
    if name is None:
        raise UserError(f"{where}: has no item_id; give every row one")
    return Item(
        item_id=name,
        prompt=text_of(prompt),
        response=text_of(response),
        finish_reason=filled_text(finish),
        generated_tokens=count_of(tokens, f"{where}, generated_tokens"),
        topic=filled_text(topic),
        group=filled_text(group),
        n_parts=count_of(parts, f"{where}, n_parts"),
    )


def _label_columns(
    table: Table, mapping: Mapping[str, str], declared: Declared
) -> tuple[dict[str, Sequence[object]], list[str]]:
    """Label name -> values [n]: named ones, and those that can only be labels; and notes."""
    named = {name: table.columns[c] for name, c in mapping.items() if name not in FIELDS}
    for name in declared.instruments:
        if name not in named and name not in table.columns:
            raise UserError(f"{table.path}: no column {name!r} for the instrument of that name")
    for name, values in named.items():
        if any(isinstance(value, (list, dict)) for value in values):
            raise UserError(f"{table.path}: column {mapping[name]!r} holds lists; no label can")
    taken = set(mapping.values()) | set(named)
    free: dict[str, Sequence[object]] = {}
    notes: list[str] = []
    for name, values in table.columns.items():
        if name in taken:
            continue
        reason = None if name in declared.instruments else _not_a_label(name, values)
        if reason is None:
            free[name] = values
        else:
            notes.append(f"{table.path}: column {name!r} is {reason}; not read")
    return {**named, **free}, notes


def _not_a_label(name: str, values: Sequence[object]) -> str | None:
    if name.lower() in METADATA:
        return "about the run, not about the answer; name it with --columns to use it as a label"
    if any(isinstance(value, (list, dict)) for value in values):
        return "a list in each row"
    kind, labels = infer(values)
    different = len(set(labels) - {None})
    if not different:
        return "empty"
    if kind is LabelKind.CLASS and different > MAX_CLASSES:
        return f"free text ({different} different values); name it with --columns to use it"
    return None


Design = tuple[str | None, str | None, int | None, str | None, Role | None]
"""Arm, task, n_predict, family, role."""


def _designs(
    table: Table, mapping: Mapping[str, str], declared: Declared
) -> dict[Design, list[int]]:
    """Row numbers of every set, in the order in which the sets begin."""
    found: dict[Design, list[int]] = {}
    for row, place in enumerate(table.places):
        cells = {n: table.columns[mapping[n]][row] for n in SET_FIELDS if n in mapping}
        design = (
            filled_text(cells.get("arm")) or declared.arm,
            filled_text(cells.get("task")) or declared.task,
            count_of(cells.get("n_predict"), f"{place}, n_predict") or declared.n_predict,
            filled_text(cells.get("family")) or declared.family,
            _role(filled_text(cells.get("role")), place) or declared.role,
        )
        found.setdefault(design, []).append(row)
    return found


def _role(text: str | None, place: str) -> Role | None:
    if text is None:
        return None
    try:
        return Role(text.strip().lower())
    except ValueError:
        raise UserError(f"{place}: role {text[:40]!r}: write train or test") from None


def _make_set(
    table: Table,
    declared: Declared,
    instruments: Mapping[str, Instrument],
    design: Design,
    items: Sequence[Item],
) -> ResultSet:
    arm, task, n_predict, family, role = design
    parts = [arm, task, None if n_predict is None else f"n_predict {n_predict}", family, role]
    said = [str(part) for part in parts if part]
    name = " ".join([declared.name or table.path.stem, *(said if declared.name is None else [])])
    require_distinct(items, f"{table.path} ({', '.join(said) or 'one set'})")
    return ResultSet(
        name=name,
        source=table.path,
        items=tuple(items),
        instruments=instruments,
        role=role,
        arm=arm,
        task=task,
        n_predict=n_predict,
        settings=declared.settings,
        features=_features(table, declared, items),
        family=family,
    )


def _features(table: Table, declared: Declared, items: Sequence[Item]) -> Features | None:
    if declared.features is not None:
        ids = tuple(item.item_id for item in items)
        return arrays.read_features(declared.features, ids, declared.feature_settings)
    if table.features is None or len(table.features.item_ids) == len(items):
        return table.features
    mine = {item.item_id for item in items}  # a table of several sets: each its own rows
    rows = [i for i, name in enumerate(table.features.item_ids) if name in mine]
    ids = tuple(table.features.item_ids[i] for i in rows)
    return replace(table.features, x=table.features.x[rows], item_ids=ids)
