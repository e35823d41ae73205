"""What must hold in a generated folder, beside the form of its lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arcs.data.lines import Contents, Problem, read
from arcs.data.sets import meta_path
from arcs.runs import MANIFEST
from arcs.teachers.config import ARC
from arcs.teachers.pipeline import DROPPED, RECORDS
from arcs.teachers.prompting import FRESH, PROMPTS
from evals.overlap import near_duplicates


def is_generated(path: Path) -> bool:
    """Whether a folder is a run of ``threearc data generate``."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("arc") == ARC


def files_of(path: Path) -> list[Path]:
    """Files of a run that hold prompts or records."""
    prompts = [path / PROMPTS, path / FRESH]
    there = [one for one in prompts if one.is_file() and one.stat().st_size]
    return [*there, *sorted((path / RECORDS).glob("*.jsonl"))]


def problems_of(path: Path) -> Iterator[Problem]:
    """What is wrong between the files of a run: prompts, splits, provenance, licences, hashes."""
    contents = {one.name: read(one) for one in files_of(path)}
    if PROMPTS not in contents:
        yield Problem(str(path), 0, f"no {PROMPTS}: the run stopped before it had prompts")
        return
    prompts = {one.id: one for one in contents[PROMPTS].records}
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    required = manifest.get("config", {}).get("require_licence")
    dropped: set[str] = set()
    for line, said in _dropped(path / DROPPED):
        if said is None:
            yield Problem(
                str(path / DROPPED), line, "no dropped record (a JSON object with its id)"
            )
        else:
            dropped.add(said)
    for name, found in contents.items():
        if name in (PROMPTS, FRESH):
            continue
        for record, line in zip(found.records, found.lines, strict=True):
            for what in _record(record, prompts, required, dropped):
                yield Problem(str(found.path), line, f"{record.id}: {what}")
        yield from _described(found)
    yield from _fresh(contents, list(prompts.values()))


def _record(
    record: Any, prompts: Mapping[str, Any], required: str | None, dropped: set[str]
) -> Iterator[str]:
    made = record.provenance
    if made is None:
        yield "no provenance"
        return
    prompt = prompts.get(str(made.get("prompt_id")))
    if prompt is None:
        yield f"its prompt {made.get('prompt_id')!r} is not among {PROMPTS}"
    elif prompt.prompt != record.prompt:
        yield f"its prompt is not the text of {prompt.id}"
    elif prompt.split != record.split:
        yield f"it is in {record.split}, its prompt in {prompt.split}"
    licences = made.get("licences") or []
    if not licences:
        yield "no licence"
    wrong = [one for one in licences if required is not None and one != required.casefold()]
    if wrong:
        yield f"licence {wrong[0]}, and the run required {required}"
    if record.id in dropped:
        yield f"it is among {DROPPED} as well"


def _described(found: Contents) -> Iterator[Problem]:
    try:
        meta = json.loads(meta_path(found.path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        yield Problem(str(found.path), 0, "no description (.meta.json) can be read beside it")
        return
    if meta.get("sha256") != hashlib.sha256(found.path.read_bytes()).hexdigest():
        yield Problem(str(found.path), 0, "changed since it was written (.meta.json)")


def _fresh(contents: Mapping[str, Contents], prompts: list[Any]) -> Iterator[Problem]:
    if FRESH not in contents:
        return
    fresh = contents[FRESH]
    pairs = near_duplicates([o.prompt for o in fresh.records], [o.prompt for o in prompts])
    for pair in pairs:
        what = f"{fresh.records[pair.first].id} is a near duplicate of {prompts[pair.second].id}"
        yield Problem(str(fresh.path), fresh.lines[pair.first], what)


def _dropped(path: Path) -> Iterator[tuple[int, str | None]]:
    """Line number and id of each dropped record; None for a line that is none."""
    if not path.is_file():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            found = json.loads(line)
        except ValueError:  # of bytes that are no text, too
            found = None
        said = found.get("id") if isinstance(found, dict) else None
        yield number, said if isinstance(said, str) else None
