"""Short answers of a capsule: claims and labels from every stored answer, answers of a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from arcs.arc3.engine import Engine
from arcs.capsules.answers import Pair, compared, in_float32
from arcs.evaluate.config import BASE
from arcs.gates import stored_gates
from arcs.measure.instrument import Record
from arcs.measure.short_answers import ShortAnswers
from backends.interface import LanguageModel
from evals.exact_match import score
from models.errors import UserError

KEPT = ("item_id", "domain", "ids", "reading", "truncated", "loop", "open", "near_ties")
LABEL = ("reading", "loop", "open")
"""What the rule says of an answer."""
TOLERANCE = 1e-12
Ids = list[list[int]]
Each = Callable[[int, Callable[[LanguageModel], Ids]], tuple[dict[str, Ids], dict[str, str]]]


def again(
    document: Mapping[str, Any],
    instrument: ShortAnswers,
    places: Sequence[int],
    each: Each,
    engine: Engine,
) -> dict[str, Any]:
    """Numbers, verdicts, labels and answers. ``each``: of :class:`arcs.capsules.measured.Arms`."""
    records = _records(document, instrument)
    claims = [_claim(document, records, name, instrument) for name in document["claims"]]
    longest = instrument.n_predict + max(len(one.ids) for one in instrument.prompts)

    def ask(model: LanguageModel) -> Ids:
        chunks = [places[at : at + instrument.chunk]
                  for at in range(0, len(places), instrument.chunk)]  # fmt: skip
        return [one["ids"] for chunk in chunks for one in instrument.measure(model, chunk)]

    found, skipped = each(longest, ask)
    pairs = [
        Pair(instrument.item_ids[place], records[name][place]["ids"], ids,
             records[name][place]["near_ties"], name)
        for name, answers in found.items() for place, ids in zip(places, answers, strict=True)
    ]  # fmt: skip
    exact = in_float32(document["manifest"]["config"]["dtype"], engine)
    return {
        "numbers": [number for number, _ in claims],
        "verdicts": [verdict for _, verdict in claims],
        "labels": _labels(records, instrument),
        "answers": compared(pairs, exact=exact, not_replayed=skipped),
    }


def _records(document: Mapping[str, Any], instrument: ShortAnswers) -> dict[str, list[Record]]:
    """By condition, in the order of the items, with the texts of their ids. Raises UserError where
    they are not one to each."""
    made: dict[str, list[Record]] = {}
    for name in document["arms"]:
        rows = [row for row in document["rows"] if row["arm"] == name]
        found = {row["item_id"]: row for row in rows}
        if len(found) < len(rows) or found.keys() != set(instrument.item_ids):
            raise UserError(f"the capsule's answers of {name} are {len(rows)}, and not one to each "
                            f"of the {len(instrument.item_ids)} items of its run")  # fmt: skip
        made[name] = [{**found[one], "text": instrument.encoder.decode(found[one]["ids"])}
                      for one in instrument.item_ids]  # fmt: skip
    return made


def _claim(
    document: Mapping[str, Any],
    records: Mapping[str, Sequence[Record]],
    name: str,
    instrument: ShortAnswers,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The claim about one edit, made again by the instrument from the stated labels."""
    manifest, stated = document["manifest"], document["claims"][name]
    overlap = manifest.get("overlap", {}).get(name)
    here = instrument.compare(
        records[BASE], records[name], stored_gates(manifest["gates"], "the capsule"),
        trained_on_test=bool(overlap and overlap["shared"]),
    )["claim"]  # fmt: skip
    values = [(stated[key], here[key]) for key in ("delta", "p_value")]
    values += [(stated["interval"][end], here["interval"][end]) for end in ("low", "high")]
    number = {
        "quantity": f"difference of accuracy, {name}", "stated": stated["delta"],
        "recomputed": here["delta"], "p_value": here["p_value"], "interval": here["interval"],
        "n": here["n_items"], "tolerance": TOLERANCE, "why": None,
        "reproduces": stated["n_items"] == here["n_items"]
        and all(abs(a - b) <= TOLERANCE for a, b in values),
    }  # fmt: skip
    same = all(stated[key] == here[key] for key in ("statement", "verdict", "reasons"))
    return number, {
        "claim": name, "stated": stated["verdict"], "reasons": stated["reasons"],
        "here": here["verdict"], "here_reasons": here["reasons"], "reproduces": same,
    }  # fmt: skip


def _labels(records: Mapping[str, Sequence[Record]], instrument: ShortAnswers) -> dict[str, Any]:
    """Every answer of every condition read again from its ids."""
    n, differing = 0, []
    for name, rows in records.items():
        for item, row in zip(instrument.items, rows, strict=True):
            n += 1
            here = asdict(score(item, row["text"], row["ids"], truncated=row["truncated"]))
            if any(here[key] != row[key] for key in LABEL):
                differing.append({"item_id": item.id, "arm": name, "stated": _said(row),
                                  "here": _said(here)})  # fmt: skip
    return {
        "by": "exact-match", "questions": len(instrument.items), "n": n,
        "same": n - len(differing), "differing": differing, "reproduces": not differing,
        "how": "of all conditions read here as stated, by exact match", "why": None,
    }  # fmt: skip


def _said(row: Mapping[str, Any]) -> str:
    return ", ".join([str(row["reading"]), *(key for key in ("loop", "open") if row[key])])
