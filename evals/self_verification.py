"""SVR, the share of answers that verify themselves: the published way, and a precise one.

The published measure (PAPER.md 3.5) matches 21 lower-case patterns anywhere in a response. One of
them is "wait" without a word boundary, which fires on ``await`` in code, and think text counts,
in which every model checks itself: it is at its ceiling for everybody. Nine of the patterns are
known to us and used as they are; the other twelve are not published where we could read them.

The precise measure looks at prose alone (no code, no think text) and wants a check that the answer
carries out, not one that it recommends or a word that is also a filler.
"""

from __future__ import annotations

import re

from evals.humaneval.thinking import drop_thoughts

REFERENCE = (
    "let me check", "let me verify", "edge case", "what if", "double-check", "sanity check",
    "wait", "hold on", "actually",
)  # fmt: skip
"""The nine known ones of the 21."""

_CHANNEL = re.compile(r"<\|channel>thought.*?(?:<channel\|>|\Z)", re.DOTALL)
"""Gemma 4's way of thinking."""
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n+")
_CHECKED = (
    # announced and done by the speaker
    r"\blet me (?:just |quickly |now |also )?(?:check|verify|test|confirm|re-?check|double-?check|"
    r"recompute|recalculate|re-?read|try|plug|trace|walk through)\b",
    r"\b(?:i|we|i've|we've|i have|we have) (?:just |also |now |then )?(?:checked|verified|tested|"
    r"confirmed|re-?checked|double-?checked|re-?read|recomputed|recalculated|traced|tried|ran)\b",
    r"\b(?:to (?:check|verify|confirm|double-?check|be sure)|as a (?:sanity |quick |cross.)?check|"
    r"sanity check|quick check|cross-?check|check|verification|proof|test)\s*[:,]",
    r"\b(?:checking|verifying|testing|working|going|counting|multiplying|dividing|adding|plugging)"
    r" (?:it |this |that |them |the \w+ )?(?:again|back|backwards?|through|in)\b",
    # a result that agrees
    r"\b(?:which|that|this|it|both|the (?:two|sum|total|product|result)s?) "
    r"(?:indeed |also |do |does )?(?:matches|match|agrees?|checks out|adds up|add up|comes? back|"
    r"gives? back|holds|is consistent|equals? the|confirms)\b",
    r"\bas (?:expected|required|it should)\b",
    r"\b(?:in reverse|the other way (?:round|around)|a second (?:way|route|method)|another (?:way|"
    r"route|method) (?:gives|to))\b",
    # a case that is gone through
    r"\b(?:with|for|take|try|if|on|given)\b[^.]{0,60}(?:→|->|=>|\bgives?\b|\breturns?\b|\byields?\b)"
    r"[^.]{0,60}\b(?:correct|right|as|expected|good|fine|so)\b",
    # a mistake that is found
    r"\b(?:wait|hold on|no|hmm)[,—-]+ (?:that|this|i|it)\b[^.]{0,60}\b(?:wrong|not right|mistake|"
    r"off|incorrect|misread|forgot|should be)\b",
    r"\bi (?:made|had) (?:a|an) (?:mistake|error|slip)\b|\bcorrecting (?:myself|that)\b",
)
_PRECISE = re.compile("|".join(f"(?:{one})" for one in _CHECKED))
_TOLD = re.compile(
    r"\b(?:you (?:should|can|could|may|might|must|need to|want to)|please|make sure|be sure|"
    r"remember to|always|don't forget|it is (?:a good idea|wise|best) to|"
    r"i(?:'d| would) recommend)\b"
)
"""Told to somebody else."""


def spoken(response: str, *, think_open: bool = False) -> str:
    """The response without think text; ``think_open``: the prompt began the thoughts."""
    return drop_thoughts(_CHANNEL.sub(" ", response), think_open=think_open).text


def prose(response: str, *, think_open: bool = False) -> str:
    """The response without think text and code; ``think_open``: the prompt began the thoughts."""
    return _CODE.sub(" ", spoken(response, think_open=think_open))


def verifies_as_published(response: str) -> bool:
    """Whether any known pattern of the published measure occurs anywhere, code and all."""
    lower = response.lower()
    return any(pattern in lower for pattern in REFERENCE)


def verifies(response: str, *, think_open: bool = False) -> bool:
    """Whether a sentence of the prose carries out a check."""
    text = prose(response, think_open=think_open).replace("’", "'").lower()
    return any(
        _PRECISE.search(sentence) is not None and _TOLD.search(sentence) is None
        for sentence in _SENTENCE.split(text)
    )
