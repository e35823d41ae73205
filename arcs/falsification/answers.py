"""Labels and responses of anyone, through the audits' readers: one item an id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arcs.audits.ends import ran_out
from arcs.audits.probe_data import binary_labels
from arcs.audits.readers import ReadOptions, read
from arcs.audits.readers.source import candidates
from arcs.audits.results import Item, ResultSet
from arcs.falsification.evidence import Label, listed
from models.errors import UserError
from models.fingerprint import file_sha256

USUAL = ("right", "correct", "passed")
"""The axis that the claim is about where no --axis names one, the first that is there."""
UNKNOWN = (None, None, None)


@dataclass(frozen=True)
class Answers:
    """Everything that is said of some items."""

    items: Mapping[str, Item]
    labels: Mapping[str, Mapping[str, Label]]
    """By axis, by item id; an item that an axis does not mention has no key."""
    instruments: Mapping[str, Mapping[str, Any]]
    """By axis, by item id: (judge, prompt, cut) of its label."""
    n_predict: Mapping[str, int | None] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict)


def read_answers(path: Path, flag: str, columns: Sequence[str] = ()) -> Answers:
    """Read what is there. Raises UserError, beginning with the flag, also where an id is twice."""
    try:
        options = ReadOptions.from_flags(columns)
        results = read(path, options)
        hashes = {str(file): file_sha256(file) for file in candidates(path)}
    except UserError as error:
        raise UserError(f"{flag} {error}") from None
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read ({error.strerror})") from None
    items: dict[str, Item] = {}
    labels: dict[str, dict[str, Label]] = {}
    instruments: dict[str, dict[str, Any]] = {}
    budgets: dict[str, int | None] = {}
    for one in results.sets:
        twice = [item.item_id for item in one.items if item.item_id in items]
        if twice:
            raise UserError(
                f"{flag} {path}: {listed(twice)} in {one.name} and in another set of it; give one "
                "arm at one n_predict, a row an item"
            )
        items |= {item.item_id: item for item in one.items}
        budgets |= dict.fromkeys((item.item_id for item in one.items), one.n_predict)
        for axis, values in binary_labels(one).items():
            named = zip(one.items, values, strict=True)
            labels.setdefault(axis, {}).update({item.item_id: value for item, value in named})
            who = dict.fromkeys((item.item_id for item in one.items), _identity(one, axis))
            instruments.setdefault(axis, {}).update(who)
    described = {"path": str(path), "format": results.format, "sha256": hashes,
                 "not_read": list(results.skipped)}  # fmt: skip
    return Answers(items, labels, instruments, budgets, described)


def _identity(one: ResultSet, axis: str) -> Any:
    named = one.instruments.get(axis)
    if named is None:  # a share or score that was cut
        named = next((i for i in one.instruments.values() if i.threshold_label == axis), None)
    return UNKNOWN if named is None else (*named.identity, named.threshold)


def with_responses(labels: Answers, responses: Answers, flag: str) -> Answers:
    """Labels with responses, ends and prompts from another file, joined by id.

    Raises UserError where both hold a response of one item, or how it ended, and they differ.
    """
    items = dict(labels.items)
    for name, item in responses.items.items():
        mine = items.get(name)
        if mine is None:
            items[name] = item
            continue
        if mine.response and item.response and mine.response != item.response:
            raise UserError(
                f"{flag}: the response of {name} is not the one that the labels' file has"
            )
        for key in _ENDS:
            both = [_end(one, key) for one in (mine, item)]
            if None not in both and both[0] != both[1]:
                raise UserError(
                    f"{flag}: the {key} of {name} is {getattr(item, key)}, and {getattr(mine, key)}"
                    " in the labels' file; correct one of them"
                )
        given = {key: getattr(item, key) for key in _TAKEN if getattr(item, key) is not None}
        items[name] = replace(mine, **given)
    budgets = {**labels.n_predict, **responses.n_predict}
    described = {**labels.described, "responses": dict(responses.described)}
    return replace(labels, items=items, n_predict=budgets, described=described)


def _end(item: Item, key: str) -> Any:
    """How an answer ended, in whatever words."""
    return ran_out(item, None) if key == "finish_reason" else getattr(item, key)


_ENDS = ("finish_reason", "generated_tokens", "repetition_loop")
_TAKEN = ("prompt", "response", "finish_reason", "generated_tokens", "repetition_loop", "topic",
          "group")  # fmt: skip


def axis_of(found: Answers, asked: str | None, where: str) -> str:
    """The label that the claim is about. Raises UserError where it is not there, or unclear."""
    there = sorted(found.labels)
    if asked is not None:
        if asked not in found.labels:
            raise UserError(f"--axis {asked}: {where} has {', '.join(there) or 'no such label'}")
        return asked
    usual = [one for one in USUAL if one in found.labels]
    if usual:
        return usual[0]
    if len(there) == 1:
        return there[0]
    if not there:
        raise UserError(
            f"{where}: no column of nothing but true and false (or 1 and 0); name it right"
        )
    raise UserError(f"{where}: several labels ({', '.join(there)}); say --axis NAME")
