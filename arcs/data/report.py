"""Data sets for people: tables and listings of what the commands found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from arcs.data.lines import Contents, Problem

MOST_LISTED = 50
"""Overlaps that are listed; --json has all of them."""


def to_terminal(shown: RenderableType) -> None:
    """Print on stdout."""
    Console(highlight=False, markup=False).print(shown)  # data may hold "[/b]"


def table(rows: Sequence[Mapping[str, Any]]) -> Group:
    """All built-in sets."""
    made = _table("Data sets that ship with threearc", "name", "n", "holds", "licence", "sha256")
    for row in rows:
        made.add_row(row["name"], str(row["n"]), row["what"], row["licence"], row["sha256"][:12])
    cards = [Text(f"{row['name']}: {_shorter(row['card'])}", style="dim") for row in rows]
    authors = {row["author"] for row in rows}
    same = (
        f"All have one author, {authors.pop()}: what is fitted on one and tested on another is "
        "generator_not_independent."
        if len(authors) == 1
        else "Authors: " + "; ".join(f"{row['name']}: {row['author']}" for row in rows)
    )
    return Group(made, Text("Cards:", style="dim"), *cards, Text(same))


def records(document: Mapping[str, Any], more: int) -> Group:
    """Some records of one set; ``more`` are not shown."""
    n, shown = document["n"], document["records"]
    about = {
        "what": f"{n} records, {document['kind']} ({document['what']})",
        "author": document["author"] or "unknown: state it in " + Path(document["path"]).name
        + ".meta.json",
        "licence": document["licence"] or "unknown",
        "sha256": document["sha256"],
        "path": document["path"],
        "card": document["card"],
        "generator_not_independent": _dependence(document["generator_not_independent"]),
    }  # fmt: skip
    head = [Text(f"{key:<8} {value}") for key, value in about.items() if value is not None]
    notes = [Text(f"note: {one}", style="bold yellow") for one in document["notes"]]
    body = [part for record in shown for part in _record(record)]
    tail = [Text(f"{more} more: --limit N or --json", style="dim")] if more else []
    return Group(Text(document["name"], style="bold"), *head, *notes, *body, *tail)


def numbers(document: Mapping[str, Any]) -> Group:
    """Counts and measures."""
    parts: list[RenderableType] = [
        Text(f"{document['name']}: {document['n']} records, {document['kind']}", style="bold")
    ]
    for field, counts in document["counts"].items():
        listed = ", ".join(f"{value} {n}" for value, n in counts.items())
        parts.append(Text(f"{field}: {listed or 'none'}"))
    made = _table("", "texts", "n", "words", "characters", "distinct openers", "distinct 4-grams")
    for name in ("prompts", "answers"):
        found = document[name]
        if found is not None:
            grams = found["distinct_4_grams"]
            made.add_row(
                name, str(found["n"]), _quartiles(found["words"]), _quartiles(found["characters"]),
                f"{found['distinct_openers']:.3f}", "-" if grams is None else f"{grams:.4f}",
            )  # fmt: skip
    parts += [made, Text("words and characters: least, quartiles, most", style="dim")]
    parts.append(
        Text(
            f"near duplicates within (Jaccard of character 6-grams > "
            f"{document['near_duplicate_threshold']:g}): {document['near_duplicates']} pairs"
        )
    )
    parts += [
        Text(f"  {one['first']}  {one['second']}  {one['similarity']:.2f}")
        for one in document["nearest"]
    ]
    parts += map(Text, _taught(document))
    return Group(*parts)


def _taught(document: Mapping[str, Any]) -> Iterator[str]:
    """What training data would teach beside its content."""
    found = document.get("style")
    if found is None:
        return
    opener, share = found["commonest_opener"]
    yield (
        f"answers trained towards: code {found['code']:.1%}, hedged {found['hedged']:.1%}, "
        f"self-checked {found['self_checked']:.1%}, Markdown {found['markdown']:.1%}, emoji "
        f"{found['emoji']:.1%} of {found['n']}"
    )
    uniform = "-" if found["uniformity"] is None else f"{found['uniformity']:.3f}"
    yield (
        f"style: uniformity {uniform} (1: all alike), lengths vary by "
        f'{found["length_variation"]:.0%}, commonest opener "{opener}" {share:.1%}, '
        f"{found['near_duplicates']} pairs of near duplicates"
    )
    licences = ", ".join(f"{name} {n}" for name, n in found["licences"].items()) or "none stated"
    yield f"licences of teachers: {licences}; {found['without_provenance']} without provenance"
    tokens = document.get("tokens")
    if tokens is None:
        yield "tokens: not counted (--model MODEL)"
    else:
        ids = _quartiles(tokens["ids"])
        yield (
            f"tokens of prompt and answer, {tokens['model']}: {ids}; {tokens['truncated']} of "
            f"{tokens['n']} ({tokens['truncated'] / tokens['n']:.1%}) longer than "
            f"{tokens['max_length']}"
        )


def mixed(document: Mapping[str, Any]) -> Group:
    """What a mixture holds."""
    made = _table("", "set", "records", "taken", "licence")
    for one in document["sources"]:
        made.add_row(
            one["name"], str(one["records"]), str(one["taken"]), one["licence"] or "unknown"
        )
    passed = sum(one["same_prompt_passed_over"] for one in document["sources"])
    types = ", ".join(f"{name} {n}" for name, n in document["types"].items())
    splits = ", ".join(f"{name} {n}" for name, n in document["split"].items())
    return Group(
        Text(f"{document['records']} records in {document['out']}, seed {document['seed']}"),
        made,
        Text(f"types: {types}; {splits}; passed over for their prompt: {passed}"),
    )


def file_row(contents: Contents | None, problems: Sequence[Problem]) -> dict[str, Any]:
    """One checked file."""
    return {
        "file": str(contents.path) if contents else problems[0].file,
        "kind": contents.kind.name if contents and contents.kind else None,
        "good": len(contents.records) if contents else 0,
        "bad_lines": len({one.line for one in problems}),
        "sha256": contents.sha256 if contents else None,
    }


def checked(document: Mapping[str, Any]) -> Group:
    """Every bad line, then the files."""
    parts = [
        Text(": ".join((f"{one['file']}, line {one['line']}" if one["line"] else one["file"],
                        one["what"])))
        for one in document["problems"]
    ]  # fmt: skip
    for row in document["files"]:
        kind = row["kind"] or "unknown kind"
        style = "bold red" if row["bad_lines"] else "bold green"
        text = f"{row['file']}: {row['good']} good, {row['bad_lines']} bad ({kind})"
        parts.append(Text(text, style=style))
    return Group(*parts)


def shared(document: Mapping[str, Any]) -> Group:
    """What sets have in common."""
    found = document["overlaps"]
    if not found:
        return Group(Text(f"{', '.join(document['sets'])}: nothing shared", style="bold green"))
    made = _table("", "part", "how", "first", "second", "similarity", "text")
    for one in found[:MOST_LISTED]:
        similarity = "" if one["similarity"] is None else f"{one['similarity']:.2f}"
        made.add_row(
            one["part"], one["how"], f"{one['first_set']}: {one['first']}",
            one["second_set"] + ("" if one["second"] is None else f": {one['second']}"),
            similarity, Text(one["text"], overflow="fold"),
        )  # fmt: skip
    more = len(found) - MOST_LISTED
    tail = [Text(f"{more} more: --json")] if more > 0 else []
    return Group(made, *tail, Text(f"shared: {len(found)}", style="bold red"))


def parts(document: Mapping[str, Any], out: str) -> Group:
    """What a split gave."""
    head = Text(f"{document['source']['name']}, seed {document['seed']}, in {out}")
    made = _table("", "part", "n", "asked", "sha256")
    for name, part in document["parts"].items():
        made.add_row(
            name, str(part["records"]), f"{100 * part['fraction']:g}%", part["sha256"][:12]
        )
    together = Text(f"{document['kept_together']} groups of near duplicates or one value of "
                    "--by were kept on one side")  # fmt: skip
    notes = [Text(f"note: {one}", style="bold yellow") for one in document["notes"]]
    return Group(head, made, together, *notes)


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in ("n", "similarity") else "left",
                        overflow="fold")  # fmt: skip
    return made


def _record(record: Mapping[str, Any]) -> Iterator[Text]:
    yield Text("")
    for key, value in record.items():
        if value not in (None, "", [], ()):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines = text.split("\n")
            yield Text(f"{key}: {lines[0]}")
            yield from (Text(f"  {line}") for line in lines[1:])


def _dependence(found: Mapping[str, bool | None]) -> str:
    same = [name for name, value in found.items() if value]
    if same:
        return f"with {', '.join(same)}: one author"
    unknown = any(value is None for value in found.values())
    return "not known" if unknown else "with none of threearc's own sets"


def _quartiles(found: Mapping[str, float]) -> str:
    return "  ".join(f"{found[name]:g}" for name in ("least", "q1", "median", "q3", "most"))


def _shorter(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except ValueError:
        return path
    return relative if len(relative) < len(path) else path


def imported(document: Mapping[str, Any]) -> Group:
    """What an import read, left out and wrote."""
    bad = document["bad_rows"]
    parts = [
        Text(f"row {one['row']}: {one['what']}" if one["row"] else one["what"], style="yellow")
        for one in bad
    ]
    if document.get("unused_columns"):
        parts.append(Text(f"columns not used: {', '.join(document['unused_columns'])}"))
    rows, good = document["rows"], document["records"]
    parts.append(Text(f"{rows} rows: {good} good, {len(bad)} bad ({document['kind']} records)"))
    if document["written"]:
        parts.append(Text(f"written: {document['out']}, sha256 {document['sha256'][:12]}"))
    elif good:
        parts.append(
            Text("nothing is written: correct the bad rows, or give --keep-good", style="bold red")
        )
    else:
        parts.append(Text("nothing is written: no good row", style="bold red"))
    return Group(*parts)


def paper(document: Mapping[str, Any], out: str) -> Group:
    """What was found in the paper's files."""
    counts, without = document["counts"], document["labels_without_value"]
    near = document["near_duplicate_prompts"]
    lines = [
        "prompts: " + ", ".join(f"{name} {counts[name]}" for name in near),
        "exactly repeated prompts: "
        + ", ".join(f"{name} {n}" for name, n in document["duplicate_prompts"].items()),
        "near duplicates: " + ", ".join(f"{name} {len(found)}" for name, found in near.items()),
        f"answers: {counts['responses']}, of them {document['repeated_responses']} with the text "
        "of another",
        f"labels: {counts['labels']}, of them {len(without)} without a value",
        *(f"  {one['id']}: {one['status']} ({one['detail']})" for one in without),
        f"not imported: {'; '.join(f'{k} ({v})' for k, v in document['not_imported'].items())}",
        f"written: {out} (MIT, (c) 2026 Tinman Labs: keep LICENSE with it; evaluation only)",
    ]
    changed = [
        Text(f"{name} is not the published file: its SHA-256 differs", style="bold red")
        for name in document["changed_files"]
    ]
    return Group(*map(Text, lines), *changed)
