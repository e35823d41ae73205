"""A judge without a model: accepted phrasings for claims, a lexicon for delivery.

Deterministic, and right only where words decide: what it is worth is measured by
``threearc judge validate`` on pairs that were written without sight of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from evals.judges import lexicon
from evals.judges.labels import JudgeId, Label, OnLabel, Question, labelled
from evals.judges.matching import FALSE_WORDS, NEGATORS, is_negative, states, words
from models.errors import CapabilityError

_VERSION = 2
"""Raised with any change of a rule; the lexicon's own words are in the hash."""
APPLIES = ("coverage", "delivery")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_FUNCTION_TEXT = """
    a an the of to in on at by for with from and or is are was were be been being it its this
    that these those as than then so do does did has have had will would can may must should
    about into over under very more most such only also there their they them he she we you i
    one when if
"""
_FUNCTION = frozenset(_FUNCTION_TEXT.split())
CONTENT_SHARE = 0.75
"""Of a claim's content words, all numbers among them, that one passage must hold where no
accepted phrasing is given."""
SAYS_NOTHING = "the response says nothing"
_WINDOW = 3
"""Sentences in a passage."""


class LexicalJudge:
    """See :class:`evals.judges.labels.Judge`."""

    def __init__(self) -> None:
        digest = hashlib.sha256(f"{_VERSION}".encode())
        for part in (*lexicon.everything(), *sorted(NEGATORS | FALSE_WORDS)):
            digest.update(part.encode())
        self.id = JudgeId("lexical", "phrases and hedges", digest.hexdigest())

    def label(
        self, questions: Sequence[Question], *, on_label: OnLabel | None = None
    ) -> list[Label]:
        """See :meth:`evals.judges.labels.Judge.label`."""
        for question in questions:
            if question.instrument.name not in APPLIES:
                raise CapabilityError(
                    f"the lexical judge cannot apply {question.instrument.name}, only "
                    f"{' and '.join(APPLIES)}: choose --judge gguf, api or recorded"
                )
        labels = []
        for question in questions:
            value = (covers if question.instrument.name == "coverage" else delivery)(question)
            made = (
                labelled(question, self.id, "missing", detail=SAYS_NOTHING)
                if value is None
                else labelled(question, self.id, "ok", value)
            )
            if on_label is not None:
                on_label(made)
            labels.append(made)
        return labels


def covers(question: Question) -> str:
    """YES where the response states an accepted phrasing, or without any the claim's words."""
    response, claim = question.fields[question.response_field], question.fields["claim"]
    if question.accept:
        text, negative = words(response), is_negative(words(claim))
        shown = any(states(text, words(one), denied_too=negative) for one in question.accept)
        return "YES" if shown else "NO"
    return "YES" if _says(response, claim) else "NO"


def _says(response: str, claim: str) -> bool:
    """Whether a passage holds most content words of the claim and all of its numbers.

    Negation must agree: a denied claim is not stated, a negative claim not by its positive.
    """
    wanted = [_stem(word) for word in words(claim) if _is_content(word)]
    numbers = {word for word in wanted if word.lstrip("-")[:1].isdigit()}
    denied = _negated(claim)
    sentences = [part for part in _SENTENCE.split(response) if part.strip()]
    for first in range(len(sentences)):
        for size in range(1, min(_WINDOW, len(sentences) - first) + 1):
            passage = " ".join(sentences[first : first + size])
            held = {_stem(word) for word in words(passage)}
            share = sum(word in held for word in wanted) / max(1, len(wanted))
            if share >= CONTENT_SHARE and numbers <= held and _negated(passage) == denied:
                return True
    return False


def _is_content(word: str) -> bool:
    return word not in _FUNCTION and (word[0].isalnum() or word[0] in "-°%")


def _negated(text: str) -> bool:
    return is_negative(words(text))


def _stem(word: str) -> str:
    """Plural and -ing, -ed endings off, so that "melts" and "melting" meet."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def delivery(question: Question) -> str | None:
    """HEDGE where hedged sentences are at least half of those that say something.

    A hedge in a sentence with as many words of certainty does not count. Code is no prose: alone,
    it is handed over as it is (ASSERT). None where not a word is said.
    """
    response = question.fields[question.response_field]
    if not re.search(r"\w", response):
        return None
    prose = _CODE.sub(" ", response).replace("’", "'").lower()
    sentences = [part for part in _SENTENCE.split(prose) if re.search(r"\w", part)]
    if not sentences:
        return "ASSERT"
    hedged = sum(lexicon.hedges(part) > lexicon.boosters(part) for part in sentences)
    return "HEDGE" if 2 * hedged >= len(sentences) else "ASSERT"
