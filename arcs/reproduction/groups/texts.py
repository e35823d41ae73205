"""The answers' texts: where they end, how long they are, how they begin, what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.groups.dispositions import JUDGED, QWEN, SMOLLM
from arcs.reproduction.groups.group import (
    Group,
    Values,
    mean,
    rate,
    rates_apart,
    scored_auc,
)
from arcs.reproduction.groups.labels import GEMMA_FRESH
from evals.overlap import near_duplicates
from evals.statistics.auc import auc
from evals.statistics.cross_validation import fold_splits, out_of_fold_scores
from evals.text_ends import ends_a_sentence

FRESH, TRAINED, VERIFIED = "judge_v4_fresh.json", "eval_full_ddv2.json", "eval_baseline.json"
WALL = 1500
"""Characters at which the stored texts of the profiles were cut."""
CLOSE = 0.35
"""Jaccard index of the paper's own rule for dropping a prompt."""
OPENERS = (
    ("fresh", "It sounds like"),
    ("fresh", "It's a common"),
    ("fresh", "That's a common"),
    ("step16", "This is a"),
    ("step16", "It's a common"),
)


def _responses(artifacts: Artifacts) -> Mapping[str, list[str]]:
    return {
        "gemma_step16": [item.response for item in artifacts.step16.items],
        "gemma_full_ddv2": [row.response for row in artifacts.verifier_trained.rows],
        "gemma_fresh_rule_simple": [item.response for item in artifacts.fresh.items],
    }


def _walled(artifacts: Artifacts) -> Mapping[str, list[str]]:
    return {
        "smollm_step16_text_len_1500": [s.text for s in artifacts.smollm_profile.samples],
        "qwen35_text_len_1500": [s.text for s in artifacts.qwen_profile.samples],
    }


def endings(artifacts: Artifacts) -> Values:
    """[texts that end a sentence, texts], and [texts of exactly 1,500 characters, texts]."""
    ended = {k: [sum(map(ends_a_sentence, v)), len(v)] for k, v in _responses(artifacts).items()}
    walled = {
        k: [sum(len(text) == WALL for text in v), len(v)] for k, v in _walled(artifacts).items()
    }
    return {**ended, **walled}


def ending_intervals(artifacts: Artifacts) -> Values:
    """The same as rates; of Gemma's, the share that does not end a sentence."""
    counts = endings(artifacts)
    unfinished = {name: rate(n - k, n) for name, (k, n) in counts.items() if "1500" not in name}
    return {**unfinished, **{k: rate(*v) for k, v in counts.items() if "1500" in k}}


def ended_and_correct(artifacts: Artifacts) -> Values:
    """Correct fresh answers among those that end a sentence and those that do not."""
    ended = [ends_a_sentence(item.response) for item in artifacts.fresh.items]
    pairs = list(zip(ended, artifacts.gemma_fresh_labels.labels, strict=True))
    finished, cut = ([label for end, label in pairs if end is side] for side in (True, False))
    counts = (sum(finished), len(finished)), (sum(cut), len(cut))
    return {
        "finished": rate(*counts[0]),
        "finished_count": list(counts[0]),
        "cut": rate(*counts[1]),
        "cut_count": list(counts[1]),
        "difference": rates_apart(*counts),
    }


def _lengths(artifacts: Artifacts) -> Mapping[str, tuple[list[int], list[bool]]]:
    items = artifacts.step16.items
    fresh = [len(item.response) for item in artifacts.fresh.items]
    labels = [bool(label) for label in artifacts.gemma_fresh_labels.labels]
    return {
        "gemma_step16_response_chars": (
            [len(item.response) for item in items], [item.correct for item in items],
        ),
        "gemma_fresh_response_chars": (fresh, labels),
    }  # fmt: skip


def length_auc(artifacts: Artifacts) -> Values:
    """AUC of the answer's length for its label."""
    return {name: auc(*pair) for name, pair in _lengths(artifacts).items()}


def length_intervals(artifacts: Artifacts) -> Values:
    """The same with intervals."""
    return {name: scored_auc(*pair) for name, pair in _lengths(artifacts).items()}


def mean_lengths(artifacts: Artifacts) -> Values:
    """Mean characters of Gemma's answers before and after training."""
    found = {k: [len(text) for text in v] for k, v in _responses(artifacts).items()}
    return {name: mean(values, len(values)) for name, values in found.items()}


def openers(artifacts: Artifacts) -> Values:
    """How many of Gemma's answers begin with a phrase."""
    found = _responses(artifacts)
    texts = {"step16": found["gemma_step16"], "fresh": found["gemma_fresh_rule_simple"]}
    return {
        f"{which}: {phrase}": sum(text.startswith(phrase) for text in texts[which])
        for which, phrase in OPENERS
    }


def overlap(artifacts: Artifacts) -> Values:
    """Largest Jaccard index of character 6-grams between prompts, and close pairs of each kind."""
    first = [item.prompt for item in artifacts.step16.items]
    fresh = [item.prompt for item in artifacts.fresh.items]
    return {
        "between": _closeness(first, fresh, inside=False),
        "inside_fresh": _closeness(fresh, fresh, inside=True),
        "inside_step16": _closeness(first, first, inside=True),
    }


def _closeness(first: Sequence[str], second: Sequence[str], *, inside: bool) -> Values:
    pairs = near_duplicates(first, second, threshold=0.1)
    kept = [pair.similarity for pair in pairs if not inside or pair.first < pair.second]
    return {"max": max(kept), "above_0.35": sum(value > CLOSE for value in kept)}


def same_responses(artifacts: Artifacts) -> Values:
    """Answers that are the same in the verifier's file and the judge's."""
    judged = {item.prompt: item.response for item in artifacts.step16.items}
    rows = artifacts.verifier_base.rows
    return {"same": sum(judged.get(row.prompt) == row.response for row in rows), "n": len(rows)}


def surface_baselines(artifacts: Artifacts) -> Values:
    """AUC of TF-IDF words for Gemma's labels: within the first prompts, and first to fresh."""
    first, fresh = artifacts.step16.items, artifacts.fresh.items
    labels = np.array([item.correct for item in first])
    target = np.array(artifacts.gemma_fresh_labels.labels, dtype=np.bool_)
    found: Values = {}
    for what in ("prompt", "response"):
        train, test = ([getattr(item, what) for item in items] for items in (first, fresh))
        rows: Any = np.array(train, dtype=object)
        held_out = out_of_fold_scores(_words(), rows, labels, fold_splits(labels))
        transferred = _words().fit(train, labels).predict_proba(test)[:, 1]
        found[f"{what}.cv"] = scored_auc(held_out, labels)
        found[f"{what}.transfer"] = scored_auc(transferred, target)
    return found


def _words() -> Any:
    """Unfitted; words in one text only are dropped, counts within a text are damped."""
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True)
    return make_pipeline(vectorizer, LogisticRegression(max_iter=2000))


GEMMA = (JUDGED, TRAINED, FRESH)
GROUPS: dict[str, Group] = {
    "truncation.sentence_terminated": Group((*GEMMA, SMOLLM, QWEN), endings),
    "truncation.intervals": Group((*GEMMA, SMOLLM, QWEN), ending_intervals),
    "truncation.correct": Group((FRESH, GEMMA_FRESH), ended_and_correct),
    "length_auc": Group((JUDGED, FRESH, GEMMA_FRESH), length_auc),
    "length_auc.intervals": Group((JUDGED, FRESH, GEMMA_FRESH), length_intervals),
    "texts.mean_lengths": Group(GEMMA, mean_lengths),
    "texts.openers": Group(GEMMA, openers),
    "texts.overlap": Group((JUDGED, FRESH), overlap),
    "texts.same_responses": Group((JUDGED, VERIFIED), same_responses),
    "texts.surface_baselines": Group((JUDGED, FRESH, GEMMA_FRESH), surface_baselines),
}
