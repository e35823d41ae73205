"""Audits of what was joined to what: ids, topics, features, training and test items.

An index of one file applied to another invalidated the paper's 800-sample profile, which is
still published (PAPER.md 8.4 L2); its Arc 1 was evaluated on lines of the training file (L1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.results import Item, Results, ResultSet
from arcs.audits.set_pairs import (
    Pair,
    arm_pairs,
    between,
    common_items,
    groups_of,
    percent,
    train_test_pairs,
)
from evals.overlap import (
    NEAR_DUPLICATE,
    duplicates_inside,
    exact_pairs,
    near_duplicates,
    normalised,
    shared_ngrams,
)
from evals.overlap import Pair as TextPair
from evals.statistics.rates import wilson

MOST_TEXTS = 3000
"""Near duplicates and topics are compared among the first so many items of a set, to bound the
time."""
MANY_SHARED = 0.05
EXAMPLES = 3
MIN_TOPICS = 10
TOP_SHARE = 0.1
"""An item's own topic is a hit where at most this share of the other topics is as similar."""
PERMUTATIONS = 500
ALIGNED_P = 0.01
FEW_HITS = 0.3
MOSTLY_HITS = 0.5
"""Topics of the paper's aligned sets are hits for 72 to 99 percent of the items."""
MOST_SHIFT = 3


def _prompts(one: ResultSet) -> list[Item]:
    return [item for item in one.items if item.prompt and item.prompt.strip()]


def _texts(items: Sequence[Item]) -> list[str]:
    return [item.prompt or "" for item in items]


def _shown(item: Item) -> str:
    return f"{item.item_id}: {normalised(item.prompt or '')[:80]}"


def train_test_overlap(results: Results) -> Outcome:
    """Look for training items among the test items, and for duplicates inside a set."""
    pairs = train_test_pairs(results)
    # Arms and budgets share their prompts: each list of prompts is looked at once.
    distinct = {tuple(_texts(_prompts(one))): one for one in reversed(results.sets)}
    sets = [one for prompts, one in reversed(distinct.items()) if len(prompts) > 1]
    findings = [
        *(finding for pair in pairs for finding in _same_items(pair)),
        *(finding for pair in pairs for finding in _similar_items(pair)),
        *(finding for one in sets for finding in _repeated(one)),
        *_shared_without_role(results),
    ]
    return outcome(findings, len(pairs) + len(sets))


def _shared_without_role(results: Results) -> Iterator[Finding]:
    """Sets that share prompts while nothing says which of them anything was fitted on."""
    free = [one for one in results.sets if one.role is None and one.arm is None]
    for number, first in enumerate(free):
        for second in free[number + 1 :]:
            pair = first, second
            shared = exact_pairs(*(_texts(_prompts(one)) for one in pair))
            if shared and first.family == second.family and first.task == second.task:
                yield Finding(
                    Severity.CAUTION,
                    between(*pair),
                    f"{len(shared)} prompts are in both sets, and neither says whether it was "
                    "trained on or tested on.",
                    'Say role = "train" or "test" of each in an audit.toml.',
                    {"shared": len(shared), "n": [len(one.items) for one in pair]},
                )


def _same_items(pair: Pair) -> Iterator[Finding]:
    train, test = pair
    first, second = _prompts(train), _prompts(test)
    by_text = {second[p.second].item_id for p in exact_pairs(_texts(first), _texts(second))}
    by_id = {b.item_id for a, b in common_items(train, test) if _same_by_id(a, b)}
    shared = by_text | by_id
    if shared:
        share = len(shared) / len(test.items)
        yield Finding(
            Severity.INVALIDATES if share > MANY_SHARED else Severity.BIASES,
            between(*pair),
            f"{percent(len(shared), len(test.items))} test items are also in the training set "
            f"({len(by_text)} by prompt, {len(by_id)} by id).",
            "Split by prompt before anything is generated, and test without the shared items.",
            {
                "shared": len(shared),
                "by_prompt": len(by_text),
                "by_id": len(by_id),
                "n": len(test.items),
                "ids": [*sorted(shared)[:10]],
            },
        )


def _same_by_id(first: Item, second: Item) -> bool:
    """Whether one id means one item; running numbers are an id of neither file's items."""
    if first.prompt and second.prompt:
        return normalised(first.prompt) == normalised(second.prompt)
    return not first.item_id.isdigit()


def _similar_items(pair: Pair) -> Iterator[Finding]:
    first, second = (_prompts(one)[:MOST_TEXTS] for one in pair)
    texts, others = _texts(first), _texts(second)
    close = [
        p
        for p in near_duplicates(texts, others, drop_common=True)
        if normalised(texts[p.first]) != normalised(others[p.second])
    ]
    same = {p.second for p in exact_pairs(texts, others)}
    grams = {i: gram for i, gram in shared_ngrams(others, texts).items() if i not in same}
    touched = ({p.second for p in close} | set(grams)) - same
    if not touched:
        return
    examples = [f"{_shown(first[p.first])} | {_shown(second[p.second])}" for p in close[:EXAMPLES]]
    n = len(second)
    yield Finding(
        Severity.BIASES if close or len(touched) / n > MANY_SHARED else Severity.CAUTION,
        between(*pair),
        f"{percent(len(touched), n)} test prompts are close to a training prompt: {len(close)} "
        f"pairs with a Jaccard index above {NEAR_DUPLICATE}, {len(grams)} prompts with 8 words in "
        "a row in common.",
        "Leave these test items out, or report the result with and without them.",
        {
            "close_pairs": len(close),
            "largest_jaccard": close[0].similarity if close else None,
            "sharing_8_words": len(grams),
            "n": n,
            "n_train": len(first),
            "examples": [*examples, *list(grams.values())[:EXAMPLES]],
        },
    )


def _repeated(one: ResultSet) -> Iterator[Finding]:
    items = _prompts(one)[:MOST_TEXTS]
    groups, texts = groups_of(items), _texts(items)
    equal: dict[str, set[str]] = {}
    for text, group in zip(texts, groups, strict=True):
        equal.setdefault(normalised(text), set()).add(group)
    exact = sum(len(found) - 1 for found in equal.values())
    # Each text once: 1,000 samples of one prompt would make 500,000 pairs of equals.
    kept = list({normalised(text): i for i, text in enumerate(texts)}.values())
    near = [
        TextPair(kept[p.first], kept[p.second], p.similarity)
        for p in duplicates_inside([texts[i] for i in kept], drop_common=True)
        if groups[kept[p.first]] != groups[kept[p.second]]
    ]
    if not (exact or near):
        return
    examples = [f"{_shown(items[p.first])} | {_shown(items[p.second])}" for p in near[:EXAMPLES]]
    yield Finding(
        Severity.BIASES if exact else Severity.CAUTION,
        one.name,
        f"Among {len(items)} items {exact} repeat a prompt of another group, and {len(near)} pairs "
        f"of prompts have a Jaccard index above {NEAR_DUPLICATE}: they are not independent.",
        "Give repeated and nearly equal prompts one group, and resample whole groups.",
        {"repeated": exact, "near_pairs": len(near), "n": len(items), "examples": [*examples]},
    )


@dataclass(frozen=True)
class TopicMatch:
    """How well the topics of a set fit the texts that they stand beside."""

    n: int
    n_topics: int
    hits: float
    """Share of items whose own topic is among the most similar tenth of all topics."""
    null_mean: float
    """The same share with topics exchanged: 0.1, or less where texts and topics share few words."""
    p: float
    own: float
    """Mean similarity to the own topic."""
    others: float
    """Mean similarity to the other topics."""
    best_shift: int
    """Shift of the topics by so many items, of -3 to 3, that fits best; 0 is as stored."""
    examples: tuple[str, ...]


def topic_match(one: ResultSet, *, seed: int = 0) -> TopicMatch | None:
    """Compare the own topic of each item with those of other items, by TF-IDF of its text.

    The null exchanges topics as a whole, so several items of one topic stay together. None
    for fewer than ``MIN_TOPICS`` topics, or where most topics share no word with any text.
    """
    items = [item for item in one.items if item.topic and (item.prompt or item.response)]
    items = items[:MOST_TEXTS]
    topics = list(dict.fromkeys(item.topic or "" for item in items))
    if len(topics) < MIN_TOPICS:
        return None
    similarity = _similarity([f"{i.prompt or ''} {i.response or ''}" for i in items], topics)
    if similarity is None or (similarity.max(axis=0) > 0).mean() < 0.5:
        return None
    column = {topic: k for k, topic in enumerate(topics)}
    own = np.array([column[item.topic or ""] for item in items])
    hit = is_hit(similarity)
    rows, rng = np.arange(len(items)), np.random.default_rng(seed)
    observed = float(hit[rows, own].mean())
    exchanged = (rng.permutation(len(topics))[own] for _ in range(PERMUTATIONS))
    null = np.array([hit[rows, other].mean() for other in exchanged])
    own_similarity = similarity[rows, own]
    return TopicMatch(
        n=len(items),
        n_topics=len(topics),
        hits=observed,
        null_mean=float(null.mean()),
        p=float((1 + (null >= observed).sum()) / (1 + PERMUTATIONS)),
        own=float(own_similarity.mean()),
        others=float((similarity.sum(axis=1) - own_similarity).mean() / (len(topics) - 1)),
        best_shift=_best_shift(similarity, own),
        examples=_worst(items, own, own_similarity),
    )


def _worst(
    items: Sequence[Item], own: NDArray[np.int64], similarity: NDArray[np.float64]
) -> tuple[str, ...]:
    """Show the items that are least like their topic, one for each topic."""
    first: dict[int, Item] = {}
    for i in np.argsort(similarity, kind="stable"):
        first.setdefault(int(own[i]), items[i])
    chosen = list(first.values())[:EXAMPLES]
    return tuple(f"{i.topic} | {normalised(i.prompt or i.response or '')[:100]}" for i in chosen)


def _similarity(texts: Sequence[str], topics: Sequence[str]) -> NDArray[np.float64] | None:
    """[n, k] TF-IDF cosines of texts and topics; None where the texts hold no words."""
    try:
        fitted = TfidfVectorizer(sublinear_tf=True, strip_accents="unicode").fit(texts)
    except ValueError:  # its way of saying "empty vocabulary"
        return None
    found: NDArray[np.float64] = (fitted.transform(texts) @ fitted.transform(topics).T).toarray()
    return found


def is_hit(similarity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n, k] whether at most ``TOP_SHARE`` of the other topics are as similar to the text."""
    ordered = -np.sort(-similarity, axis=1)
    allowed = int(TOP_SHARE * (similarity.shape[1] - 1))
    hit: NDArray[np.bool_] = (similarity > ordered[:, [allowed + 1]]) & (similarity > 0)
    return hit


def _best_shift(similarity: NDArray[np.float64], own: NDArray[np.int64]) -> int:
    rows = np.arange(len(own))
    shifts = sorted(range(-MOST_SHIFT, MOST_SHIFT + 1), key=abs)
    return max(shifts, key=lambda k: float(similarity[rows, np.roll(own, -k)].mean()))


def misaligned_joins(results: Results) -> Outcome:
    """Look for topics, features and arms that were joined to the wrong items."""
    matches = [(one, match) for one in results.sets if (match := topic_match(one))]
    arms = arm_pairs(results)
    with_features = [one for one in results.sets if one.features is not None]
    findings = [
        *(finding for one, match in matches for finding in _strange_topics(one, match)),
        *(finding for one in with_features for finding in _feature_ids(one)),
        *(finding for one in results.sets for finding in _ambiguous_ids(one)),
        *(finding for pair in arms for finding in _other_prompts(pair)),
    ]
    return outcome(findings, len(matches) + len(with_features) + len(arms))


def _strange_topics(one: ResultSet, match: TopicMatch) -> Iterator[Finding]:
    if match.p <= ALIGNED_P and match.hits >= FEW_HITS:
        return
    # Topics, not items, are independent; with few of them a weak match is not a wrong one.
    most = wilson(round(match.hits * match.n_topics), match.n_topics).high
    at_null = match.p > ALIGNED_P and most < MOSTLY_HITS
    evidence: dict[str, Evidence] = {
        "n": match.n,
        "topics": match.n_topics,
        "hits": match.hits,
        "hits_expected_by_chance": match.null_mean,
        "p": match.p,
        "similarity_own": match.own,
        "similarity_others": match.others,
        "best_shift": match.best_shift,
        "examples": [*match.examples],
    }
    said = "are not about the texts" if at_null else "hardly fit the texts"
    yield Finding(
        Severity.INVALIDATES if at_null else Severity.CAUTION,
        one.name,
        f"The topics {said} they stand beside: the own topic is among the closest tenth for "
        f"{match.hits:.0%} of {match.n} items, {match.null_mean:.0%} with topics "
        f"exchanged at random (p = {match.p:.2g}).",
        "Join by an id that both files store, and assert that topic or prompt hash is equal.",
        evidence,
    )


def _feature_ids(one: ResultSet) -> Iterator[Finding]:
    if one.features is None:
        return
    ids, known = one.features.item_ids, one.by_id
    repeated = len(ids) - len(set(ids))
    unknown = [item_id for item_id in ids if item_id not in known]
    bare = [item_id for item_id in known if item_id not in set(ids)]
    if one.features.ids_are_positions:
        yield Finding(
            Severity.CAUTION,
            one.name,
            f"The {len(ids)} feature rows store no ids and are joined to {len(one.items)} items by "
            "position; nothing shows that the orders are the same.",
            "Store the item ids beside the feature rows.",
            {"rows": len(ids), "items": len(one.items)},
        )
    if unknown or bare or repeated or len(ids) != len(one.features.x):
        matched = len(set(ids) & set(known))
        yield Finding(
            Severity.BIASES
            if matched and len(ids) == len(one.features.x)
            else Severity.INVALIDATES,
            one.name,
            f"Features and items do not match by id: {len(unknown)} of {len(ids)} rows have no "
            f"item, {len(bare)} of {len(known)} items no row, {repeated} row ids are repeated.",
            "Extract features and labels from one list of ids, and report which were dropped.",
            {
                "rows_without_item": len(unknown),
                "items_without_row": len(bare),
                "repeated_ids": repeated,
                "ids": len(ids),
                "rows": len(one.features.x),
            },
        )


def _ambiguous_ids(one: ResultSet) -> Iterator[Finding]:
    repeated = [i for i, n in Counter(item.item_id for item in one.items).items() if n > 1]
    if repeated:
        yield Finding(
            Severity.INVALIDATES,
            one.name,
            f"{len(repeated)} ids stand for several of the {len(one.items)} items, so nothing can "
            "be joined by id.",
            "Give every item an id of its own, and keep what samples share in a group.",
            {"repeated": len(repeated), "ids": [*repeated[:10]]},
        )


def _other_prompts(pair: Pair) -> Iterator[Finding]:
    items = common_items(*pair)
    known = [(a, b) for a, b in items if a.prompt and b.prompt]
    differ = [(a, b) for a, b in known if normalised(a.prompt or "") != normalised(b.prompt or "")]
    if differ:
        yield Finding(
            Severity.INVALIDATES,
            between(*pair),
            f"{percent(len(differ), len(known))} common ids stand for different prompts in the two "
            "arms, so paired results compare different items.",
            "Join the arms by an id that is made from the prompt.",
            {
                "differ": len(differ),
                "n": len(known),
                "examples": [f"{_shown(a)} | {_shown(b)}" for a, b in differ[:EXAMPLES]],
            },
        )
    sizes = [len(one.items) for one in pair]
    if not items and all(sizes):
        yield Finding(
            Severity.INVALIDATES,
            between(*pair),
            f"The arms have no id in common ({sizes[0]} and {sizes[1]} items): they cannot be "
            "compared as pairs.",
            "Run both arms on the same items, under the same ids.",
            {"n": [*sizes]},
        )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "train-test-overlap",
        "Are test items, or close copies of them, in the training set?",
        "prompts or ids of training and test sets",
        train_test_overlap,
    ),
    Audit(
        "misaligned-joins",
        "Do topics, features and arms belong to the items they are joined to?",
        "topics with texts, features, or two arms",
        misaligned_joins,
    ),
)
