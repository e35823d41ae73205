"""A realistic clean experiment for the audits: every audit must be silent on it.

Two arms over the same test items, a training set with other prompts, features joined by id,
texts of varied length on a topic of their own. Seeded defects are made from it with
``change_set`` and ``change_items``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from arcs.audits.results import (
    Features,
    Instrument,
    Item,
    LabelKind,
    LabelValue,
    Reported,
    Results,
    ResultSet,
    Role,
)

TRAIN = "train"
BASE = "test base"
EDITED = "test edited"
SOURCE = Path("made/results.jsonl")
SETTINGS = {
    "dtype": "float32",
    "quantisation": "none",
    "decoding": "greedy",
    "template": "3f2a9c",
    "engine": "torch 2.9",
}
_ONSETS = ("b", "br", "ch", "d", "f", "gl", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")
_CODAS = ("", "l", "n", "r", "s", "t", "nd", "ck")
_SMALL_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "with",
    "for",
    "when",
    "then",
    "that",
    "this",
    "from",
    "at",
    "by",
    "on",
    "but",
    "so",
]


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.random() * len(words))]  # rng.choice copies the list each time


def _word(rng: np.random.Generator) -> str:
    syllables = int(rng.integers(2, 4))
    parts = [_pick(rng, _ONSETS) + _pick(rng, _VOWELS) for _ in range(syllables)]
    return "".join(parts) + _pick(rng, _CODAS)


def _vocabulary(rng: np.random.Generator) -> list[str]:
    return [_word(rng) for _ in range(500)]


def _sentence(rng: np.random.Generator, words: Sequence[str], own: Sequence[str]) -> str:
    length = int(rng.integers(6, 15))
    small = rng.random(length) < 0.4
    drawn = [_pick(rng, _SMALL_WORDS if is_small else words) for is_small in small]
    if rng.random() < 0.6:
        drawn[int(rng.integers(length))] = _pick(rng, own)
    return " ".join(drawn).capitalize() + "."


def _response(rng: np.random.Generator, words: Sequence[str], own: Sequence[str]) -> str:
    count = int(np.clip(rng.lognormal(1.6, 0.6), 2, 25))
    return " ".join(_sentence(rng, words, own) for _ in range(count))


def _prompt(rng: np.random.Generator, words: Sequence[str], own: Sequence[str]) -> str:
    lead = _sentence(rng, words, own)[:-1]
    return f"{lead} {' '.join(own)} {_sentence(rng, words, own)[:-1].lower()}?"


def instruments() -> dict[str, Instrument]:
    """The five labels of the clean experiment, each with everything stored."""
    judge = {"judge": "judge-model 1.0", "prompt_sha": "9b1c"}
    score = Instrument("factual_accuracy", LabelKind.SCORE, scale=(1.0, 5.0), **judge)
    share = Instrument(
        "coverage",
        LabelKind.SHARE,
        scale=(0.0, 1.0),
        threshold=0.5,
        threshold_label="correct",
        **judge,
    )
    verbal = Instrument("verbal", LabelKind.CLASS, classes=("assert", "hedge", "mixed"), **judge)
    correct = Instrument("correct", LabelKind.PASS, **judge)
    found = Instrument("ends_politely", LabelKind.PASS, judge="checker 2.1")
    return {one.name: one for one in (score, share, verbal, correct, found)}


def _labels(rng: np.random.Generator) -> dict[str, LabelValue | None]:
    hits = int(rng.binomial(4, rng.choice([0.25, 0.75])))
    right = hits >= 2
    agrees = rng.random() < 0.93
    high = right if agrees else not right
    return {
        "coverage": hits / 4,
        "correct": right,
        "factual_accuracy": float(rng.integers(4, 6) if high else rng.integers(1, 4)),
        "verbal": str(rng.choice(["assert", "hedge", "mixed"], p=[0.55, 0.25, 0.2])),
        "ends_politely": bool(rng.random() < 0.5),
    }


def _item(
    rng: np.random.Generator, item_id: str, prompt: str, own: Sequence[str], words: Sequence[str]
) -> Item:
    response = _response(rng, words, own)
    return Item(
        item_id=item_id,
        prompt=prompt,
        response=response,
        finish_reason="stop",
        generated_tokens=len(response) // 4 + int(rng.integers(0, 40)),
        topic=" ".join(own),
        group=item_id,
        n_parts=4,
        labels=_labels(rng),
    )


def _features(rng: np.random.Generator, items: Sequence[Item], dimensions: int) -> Features:
    right = np.array([bool(item.labels["correct"]) for item in items])
    x = rng.normal(size=(len(items), dimensions)).astype(np.float32)
    x[:, 0] += 0.5 * right
    ids = tuple(item.item_id for item in items)
    return Features(x, ids, settings={**SETTINGS, "position": "last content token"})


def _set(name: str, items: Sequence[Item], **rest: Any) -> ResultSet:
    return ResultSet(
        name=name,
        source=SOURCE,
        items=tuple(items),
        instruments=instruments(),
        task="cooking",
        n_predict=2048,
        settings=SETTINGS,
        reported=(Reported("pass rate", 0.5, has_interval=True),),
        family="experiment",
        **rest,
    )


def clean_results(
    seed: int = 0, *, n: int = 120, n_train: int | None = None, d: int = 16
) -> Results:
    """A clean experiment: ``n`` test items in two arms, ``n_train`` (default ``n``) to train on."""
    rng = np.random.default_rng(seed)
    words = _vocabulary(rng)
    n_train = n if n_train is None else n_train
    owns = [[_word(rng), _word(rng), _word(rng)] for _ in range(n + n_train)]
    prompts = [_prompt(rng, words, own) for own in owns]
    made = [
        _item(rng, f"{'test' if i < n else 'train'}-{i}", prompts[i], owns[i], words)
        for i in range(n + n_train)
    ]
    edited = [_item(rng, made[i].item_id, prompts[i], owns[i], words) for i in range(n)]
    base, train = made[:n], made[n:]
    sets = (
        _set(TRAIN, train, role=Role.TRAIN, arm="base", features=_features(rng, train, d)),
        _set(BASE, base, role=Role.TEST, arm="base", features=_features(rng, base, d)),
        _set(EDITED, edited, role=Role.TEST, arm="edited"),
    )
    return Results(path=SOURCE.parent, format="made for a test", sets=sets)


def only(results: Results, name: str) -> ResultSet:
    """The set of this name."""
    return next(one for one in results.sets if one.name == name)


def change_set(results: Results, name: str, **changes: Any) -> Results:
    """The same results with fields of one set replaced."""
    sets = tuple(replace(one, **changes) if one.name == name else one for one in results.sets)
    return replace(results, sets=sets)


def change_items(results: Results, name: str, change: Callable[[int, Item], Item]) -> Results:
    """The same results with ``change(position, item)`` in place of every item of one set."""
    items = tuple(change(i, item) for i, item in enumerate(only(results, name).items))
    return change_set(results, name, items=items)


def change_instrument(results: Results, name: str, label: str, **changes: Any) -> Results:
    """The same results with fields of one instrument of one set replaced."""
    known = only(results, name).instruments
    changed = {**known, label: replace(known[label], **changes)}
    return change_set(results, name, instruments=changed)


def with_labels(item: Item, **labels: LabelValue | None) -> Item:
    """The same item with some labels replaced."""
    return replace(item, labels={**item.labels, **labels})
