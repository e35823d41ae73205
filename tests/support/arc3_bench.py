"""Rows of two sets for tests of Arc 3, and a run whose answers were written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from arcs.arc3 import features, responses
from arcs.arc3.config import EXACT_MATCH, PROFILES, Profile
from arcs.arc3.pipeline import LABELS
from arcs.arc3.probing import Study
from arcs.arc3.questions import SETS, Question, describe, encoder_of, questions
from arcs.arc3.table import Side
from arcs.runs import RunDirectory
from evals.probing.baselines import SCALARS, Answers
from models.chat import load_tokenizer
from models.directory import ModelDirectory
from models.question_answer import line_end_ids

SMALL: Profile = replace(
    PROFILES["quick"], cv_seeds=2, slow_seeds=1, permutations=20, sweep_permutations=1,
    oracle_permutations=200,
)  # fmt: skip
SIGNAL = 3.0


def side(
    seed: int,
    *,
    n: int = 100,
    d: int = 24,
    signal: float = 0.0,
    rate: float = 0.4,
    layers: int | None = None,
) -> Side:
    """Rows whose label is worth ``signal`` standard deviations along one column."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < rate
    x = rng.normal(size=(n, d))
    x[:, 3] += signal * y
    scalars = rng.normal(size=(n, len(SCALARS)))
    features = {"h_last": x.astype(np.float32)}
    if layers is not None:
        stack = rng.normal(size=(n, layers, d))
        stack[:, -1] = x
        features["all_layers"] = stack.astype(np.float32)
    return Side(
        item_ids=tuple(f"{seed}-{i}" for i in range(n)),
        y=y,
        low=y,
        high=y,
        finished=np.ones(n, dtype=np.bool_),
        truncated=np.zeros(n, dtype=np.bool_),
        groups=tuple(f"kind{i % 6}" for i in range(n)),
        x=features,
        answers=Answers(
            prompts=tuple(f"word{k}" for k in rng.integers(0, 8, n)),
            responses=tuple(f"word{k}" for k in rng.integers(0, 8, n)),
            topics=tuple(f"topic{k}" for k in rng.integers(0, 3, n)),
            prompt_tokens=rng.integers(5, 20, n),
            ids=tuple(tuple(row) for row in rng.integers(0, 50, (n, 6)).tolist()),
            scalars=scalars.astype(np.float32),
        ),
        asserted=(True,) * n,
        without_label=0,
        without_features=0,
    )


def study(train: Side, fresh: Side) -> Study:
    """With the sizes of tests."""
    return Study(train, fresh, SMALL, 0, 0.95)


def written_run(
    out: Path,
    directory: ModelDirectory,
    *,
    limit: int,
    right: Sequence[int] = (0, 2, 3),
    named: str | None = None,
    items: str = "short-answers",
    n_predict: int = 48,
    says: Callable[[Question, bool], str] | None = None,
) -> Path:
    """A run whose answers are right at these places of seven.

    For ``--ids-from``: a tiny random model never answers right by itself. ``named``: as of another
    model of that name, for ``--difficulty-from``. ``says``: a right or a wrong answer to a
    question, where it is no short one.
    """
    encoder = encoder_of(directory, EXACT_MATCH)
    asked = questions(items, encoder, limit)
    manifest: dict[str, Any] = {
        "arc": "arc3",
        "model": {"fingerprint": named or directory.fingerprint},
        "backend": "hand",
        "engine": {"engine": "hand"},
        "questions": {**describe(asked, items), "n_predict": n_predict},
    }
    run = RunDirectory.create(out, manifest)
    tokenizer = load_tokenizer(directory.path)
    store = responses.store_of(run)
    for place, question in enumerate(asked):
        said = (says or _short)(question, place % 7 in right)
        ids = tokenizer.encode(f"{said}." if place % 2 else said, add_special_tokens=False)
        store.append(
            {
                "item_id": question.item_id,
                "set": question.set,
                "prompt_sha": question.prompt_sha,
                "ids": [*ids, encoder.end_of_turn_id or line_end_ids(tokenizer)[0]],
                "finish_reason": "stop",
                "near_ties": 0,
            }
        )
    labels = {one.item_id: place % 7 in right for place, one in enumerate(asked)}
    run.write_json(LABELS, {"right": labels})
    for name in SETS:  # its features are not those of any engine
        ids = [one.item_id for one in asked if one.set == name]
        save_rows(features.path_of(out, name), ids)
    run.close()
    return out


def _short(question: Question, right: bool) -> str:
    return str(question.record.answers[0]) if right else "purple"


def save_rows(path: Path, item_ids: Sequence[str], width: int = 96) -> None:
    """Features that say nothing."""
    from safetensors.numpy import save_file

    facts = {
        "item_ids": list(item_ids), "missing": [], "definition": {"position": "last_content"},
        "finish_reasons": [],
    }  # fmt: skip
    rows = np.ones((len(item_ids), width), dtype=np.float32)
    metadata = {"facts": json.dumps(facts)}
    save_file({"h_last": rows}, path, metadata=metadata)
