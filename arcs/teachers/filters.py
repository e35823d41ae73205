"""Named rules that drop records, each with its count; what is dropped is kept with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from arcs.data.kinds import KINDS
from arcs.teachers.plan import Kind, Wanted
from arcs.teachers.preference import preferred
from arcs.teachers.replies import Stored
from arcs.training_data.quality import distinct_ngram_share, ngrams, words
from evals.chef.verifier import verify
from evals.humaneval.problems import load_problems
from evals.items.load import SETS, built_in
from evals.judges.lexicon import hedges
from evals.overlap import WORDS, near_duplicates
from evals.text_ends import looks_unfinished

SHORTEST, LONGEST = 100, 3000
"""Characters of a response (PAPER.md 2.7)."""
RATIOS: Mapping[Kind, tuple[float, float]] = {
    "gold": (0.1, 3.0), "failure_trace": (0.15, 4.0), "counterexample": (0.5, 2.0),
}  # fmt: skip
"""Characters of the response over the first draft's, of a correction over the attempt's, of the
rejected answer over the chosen one's: least and most.

Answers and corrections are asked for in 80 to 200 words, drafts (768 tokens) and attempts (512) in
no length: 80 words are some 450 characters, a full draft some 3,500 and a full attempt some 2,300.
"""
REPETITIVE = 0.6
"""Share of distinct word 4-grams below which a text goes round in circles."""
ALIKE = 0.6
"""Jaccard index of character 6-grams of two responses."""
_REVIEW = re.compile(
    r"\b(?:the|this|your|my|an|that) (?:draft|objections?|notes? from|critique|critic|reviewer|"
    r"(?:first|earlier|previous|original|student's) answer)\b|\bverdict\s*:",
    re.IGNORECASE,
)
_DEFERS = re.compile(
    r"\b(?:no (?:one|single|right|definite|definitive|exact|simple) (?:\w+ )?(?:answer|number|name|"
    r"figure|recipe|date|reason)|cannot (?:be )?(?:know|say|tell|give|judge|answer|determine)\w*|"
    r"can't (?:know|say|tell|give|judge|answer)|nobody (?:knows|can)|disputed|contested|"
    r"ask (?:your|a|the) (?:doctor|physician|dietitian|pharmacist|allergist)|not (?:been )?"
    r"(?:published|recorded|documented|measured)|matter of taste|depends on|without knowing|"
    r"would need to know|not enough information)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Made:
    """A record with all its answers, before it is one."""

    wanted: Wanted
    done: Mapping[str, Stored]
    response: str
    """What would be trained on."""
    other: str
    """What it is held against: first draft, attempt, rejected answer; empty of boundary cases."""


@dataclass(frozen=True)
class Dropped:
    """A record that a rule left out."""

    id: str
    kind: str
    rule: str
    detail: str
    prompt_id: str
    prompt: str
    texts: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, for ``dropped.jsonl``."""
        return {**vars(self), "texts": dict(self.texts)}


@dataclass
class Context:
    """What rules may know beside the record."""

    score_used: bool
    """Whether the verifier ranks well enough (gate ``[verifier]``)."""
    kept: list[str] = field(default_factory=list)
    """Responses that have passed all rules."""


Test = Callable[[Made, Context], str | None]


@dataclass(frozen=True)
class Rule:
    """One reason to leave a record out."""

    name: str
    what: str
    kinds: tuple[Kind, ...]
    test: Test
    """Says what is wrong, or None."""


EVERY: tuple[Kind, ...] = ("gold", "failure_trace", "counterexample", "boundary")
TRAINED: Mapping[Kind, str] = {
    "gold": "synthesizer", "failure_trace": "corrector", "counterexample": "planter",
    "boundary": "boundary_answer",
}  # fmt: skip
"""The stage that ends a record: its answer must be finished."""
HELD_AGAINST: Mapping[Kind, str] = {"gold": "eager", "failure_trace": "student"}


def _unfinished(made: Made, context: Context) -> str | None:
    del context
    stage = TRAINED[made.wanted.kind]
    last = made.done[stage]
    if last.unfinished:
        reason = "inside a thought" if last.answer.unclosed else last.answer.finish_reason
        return f"{stage} was cut ({reason}) after {last.answer.output_tokens or 'unknown'} tokens"
    if not (last.answer.finish_reason or "").strip() and looks_unfinished(last.answer.text):
        return f"{stage} breaks off, and no finish reason was given"
    return None


def _length(made: Made, context: Context) -> str | None:
    del context
    n = len(made.response)
    return None if SHORTEST <= n <= LONGEST else f"{n} characters"


def _ratio(made: Made, context: Context) -> str | None:
    del context
    low, high = RATIOS[made.wanted.kind]
    # a pair's chosen side is the measure; elsewhere the response is measured
    top, bottom = made.response, made.other
    if made.wanted.kind == "counterexample":
        top, bottom = bottom, top
    ratio = len(top) / max(1, len(bottom))
    return None if low <= ratio <= high else f"{ratio:.2f} times as long"


def _repetitive(made: Made, context: Context) -> str | None:
    del context
    for text in filter(None, (made.response, made.other)):
        if len(words(text)) >= 20 and distinct_ngram_share([text]) < REPETITIVE:
            return f"{distinct_ngram_share([text]):.2f} of its word 4-grams are distinct"
    return None


def _review(made: Made, context: Context) -> str | None:
    del context
    found = _REVIEW.search(made.response)
    return f"speaks of {found[0]!r}" if found else None


def _same(made: Made, context: Context) -> str | None:
    del context
    alike = made.response.split() == made.other.split()
    return "both sides are the same" if alike else None


def _deferral(made: Made, context: Context) -> str | None:
    del context
    lower = made.response.lower()
    if _DEFERS.search(lower) or hedges(lower) >= 2:
        return None
    return "nothing in it leaves the answer open"


def _contradicted(made: Made, context: Context) -> str | None:
    if not context.score_used:
        return None
    found = [s for s in verify(made.response).statements if s.verdict == "contradicted"]
    if not found:
        return None
    return f"{found[0].check}: {found[0].said[:120]} (reference: {found[0].known[:80]})"


def _score(made: Made, context: Context) -> str | None:
    """A correction, or a chosen answer, that the verifier ranks below what it is better than."""
    if not context.score_used:
        return None
    better, worse = verify(made.response).score, verify(made.other).score
    if better is None or worse is None or better >= worse:
        return None
    return f"scores {better:.2f} against {worse:.2f}"


def _preference(made: Made, context: Context) -> str | None:
    del context
    said = [made.done[name].answer.text for name in
            ("prefer_chosen_first", "prefer_rejected_first")]  # fmt: skip
    found = preferred(*said)
    return None if found == "chosen" else f"{found}: {said[0][:40]!r}, {said[1][:40]!r}"


def _duplicate(made: Made, context: Context) -> str | None:
    found = near_duplicates([made.response], context.kept, threshold=ALIKE)
    return f"{found[0].similarity:.2f} like an earlier response" if found else None


def _contaminated(made: Made, context: Context) -> str | None:
    del context
    texts = [made.response, made.other] if made.wanted.kind == "counterexample" else [made.response]
    shared = (" ".join(gram) for text in texts for gram in ngrams(text, WORDS)
              if gram in _evaluated())  # fmt: skip
    found = next(shared, None)
    return f"shares with an evaluation set: {found}" if found else None


@cache
def _evaluated() -> frozenset[tuple[str, ...]]:
    """Word 8-grams of the prompts and answers of every set that ships for evaluation, HumanEval's
    prompts and solutions among them."""
    found: set[tuple[str, ...]] = set()
    for problem in load_problems():
        for text in (problem.prompt, problem.canonical_solution):
            found.update(ngrams(text, WORDS))
    for name, model in SETS.items():
        if name == "chef_train":  # the training distribution of the probes
            continue
        kind = next(one for one in KINDS.values() if one.model is model)
        for item in built_in(name, model):
            for text in (*kind.prompts(item), *kind.answers(item)):
                found.update(ngrams(text, WORDS))
    return frozenset(found)


RULES: tuple[Rule, ...] = (
    Rule("unfinished", "the last stage ran out of tokens or broke off", EVERY, _unfinished),
    Rule("length", f"response of {SHORTEST} to {LONGEST} characters", EVERY, _length),
    Rule("length_ratio", "too short or long beside what it is held against",
         ("gold", "failure_trace", "counterexample"), _ratio),
    Rule("repetitive", "goes round in circles", EVERY, _repetitive),
    Rule("mentions_review", "speaks of drafts and critics", EVERY, _review),
    Rule("same", "nothing was changed", ("failure_trace", "counterexample"), _same),
    Rule("no_deferral", "a boundary answer that leaves nothing open", ("boundary",), _deferral),
    Rule("contradicted", "the Chef verifier contradicts it", ("gold", "failure_trace", "boundary"),
         _contradicted),
    Rule("verifier_score", "ranked below what it should be better than",
         ("failure_trace", "counterexample"), _score),
    Rule("preference", "tied, inverted or unreadable in one of both orders", ("counterexample",),
         _preference),
    Rule("duplicate", "nearly the same response as an earlier one",
         ("gold", "failure_trace", "boundary"), _duplicate),
    Rule("contaminated", "shares eight words with an evaluation set", EVERY, _contaminated),
)  # fmt: skip
"""In this order; the first that speaks is the reason."""
BEFORE = ("failed", "empty", "chosen_dropped", "unfinished", "verdict_unparsed", "no_failure",
          "incomplete")  # fmt: skip
"""Reasons for which a record never had all its answers, in the order of the table."""


@dataclass(frozen=True)
class Count:
    """One line of the table: a rule and one type of record."""

    kind: str
    rule: str
    before: int
    dropped: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**vars(self), "after": self.before - self.dropped}


def apply(made: Sequence[Made], context: Context) -> tuple[list[Made], list[Dropped]]:
    """Pass records through the rules, in order."""
    kept, dropped = [], []
    for one in made:
        for rule in RULES:
            reason = rule.test(one, context) if one.wanted.kind in rule.kinds else None
            if reason is not None:
                dropped.append(drop(one.wanted, one.done, rule.name, reason))
                break
        else:
            kept.append(one)
            context.kept.append(one.response)
    return kept, dropped


def drop(wanted: Wanted, done: Mapping[str, Stored], rule: str, detail: str) -> Dropped:
    """A record that is left out, with everything that was said."""
    texts = {**wanted.given, **{name: one.answer.text for name, one in sorted(done.items())}}
    return Dropped(
        wanted.id, wanted.kind, rule, detail, wanted.prompt.id, wanted.prompt.prompt, texts
    )


def counts(kind: Kind, wanted: int, dropped: Sequence[Dropped]) -> list[Count]:
    """The table of one type: every rule that applies to it, with records before and dropped."""
    rules = [rule.name for rule in RULES if kind in rule.kinds]
    names = [*BEFORE, *(name for name in rules if name not in BEFORE), "schema"]
    # "unfinished" speaks twice: for an attempt that broke off, and for the last stage
    found, left = [], wanted
    for name in names:
        n = sum(one.kind == kind and one.rule == name for one in dropped)
        if n or name in rules:
            found.append(Count(kind, name, left, n))
        left -= n
    return found
