"""Whether a model's answer to a short-answer question is right: one rule, no model as judge.

The first line of the answer is read from its start, and the first words that could be an answer
decide. Two cases, by whether the question names the possible answers:

* Choice (``options`` given: "Is tea a drink or a tool?", yes or no): the first option that the
  line names must be an accepted answer.
* Open (no options): words that the question contains and the words in :data:`FILLERS` are skipped;
  what begins at the first other word must be an accepted answer ("The capital of Peru is Lima."
  is read as "Lima", "7 + 8 = 15" as "15"). Anything may follow it.

Case, accents, punctuation, Markdown and articles do not count, and "twelve" is "12".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from enum import StrEnum

INSTRUCTION = "\n\nReply with one word or number only."
"""Follows every question in the user message; it is no part of the question here."""

_FILLER_TEXT = """
    a an the this that these those it its s i you we he she they there here
    is are was were be been being do does did has have had can will would
    of in on at to from by for with as and so if then than or
    answer answers question correct right final result value output word number
    called named known located made used usually mainly mostly primarily typically generally
    equals equal equivalent returns return gives give makes make prints print shows show
    sure okay ok well yes therefore
"""
FILLERS = frozenset(_FILLER_TEXT.split())
"""Words that carry no answer in a sentence around one. A word of an accepted answer is compared
before it is skipped, so "yes" as an answer is not lost."""

LONGEST_ANSWER = 5
"""Words of the longest answer, "seven hundred and fifty three" as a number."""

_UNIT_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TEN_TEXT = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: n for n, word in enumerate(_UNIT_TEXT.split())} | {
    word: 10 * n for n, word in enumerate(_TEN_TEXT.split(), start=2)
}
_TOKEN = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\w+")


class Reading(StrEnum):
    """What an answer comes to."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    """Nothing in the line that is read could be an answer: no option is named, or every word is
    the question's or a filler. Not right, and counted apart."""


def is_right(
    answer: str, *, prompt: str, accepted: Sequence[str], options: Sequence[str] = ()
) -> bool:
    """Whether ``answer`` (the model's text) is one of ``accepted``; see :func:`read`."""
    return read(answer, prompt=prompt, accepted=accepted, options=options) is Reading.RIGHT


def read(
    answer: str, *, prompt: str, accepted: Sequence[str], options: Sequence[str] = ()
) -> Reading:
    """Read ``answer`` (the model's text) by the module's rule.

    ``prompt`` is the question without :data:`INSTRUCTION`. ``options`` are all the answers that
    the question offers, the accepted ones among them; empty for an open question.
    """
    line = tokens(first_line(answer))
    right = [tokens(text) for text in accepted]
    if options:
        named = _first_of(line, [tokens(text) for text in options])
        if named is None:
            return Reading.UNPARSED
        return Reading.RIGHT if named in right else Reading.WRONG
    skipped = FILLERS.union(tokens(prompt))
    for start, token in enumerate(line):
        if any(_begins(line, start, words) for words in right):
            return Reading.RIGHT
        if token not in skipped:
            return Reading.WRONG
    return Reading.UNPARSED


def is_settled(
    answer: str, *, prompt: str, accepted: Sequence[str], options: Sequence[str] = ()
) -> bool:
    """Whether no text after ``answer`` could change its reading (for answers that were cut).

    So it is where the line that is read has ended, or where what decides stands more than
    :data:`LONGEST_ANSWER` words before the cut: the last word may be half of one, and "twenty"
    can still become "twenty-one".
    """
    lines = answer.splitlines(keepends=True)
    ended = [line for line in lines if line.splitlines() != [line]]
    if first_line("".join(ended)):
        return True
    sooner = " ".join(tokens(first_line(answer))[:-LONGEST_ANSWER])
    found = [
        read(text, prompt=prompt, accepted=accepted, options=options) for text in (sooner, answer)
    ]
    return found[0] is found[1] and found[1] is not Reading.UNPARSED


def first_line(text: str) -> str:
    """The first line of ``text`` with a letter or digit that is no code fence; "" if none."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("```"))
    return next((line for line in lines if _TOKEN.search(line)), "")


def tokens(text: str) -> list[str]:
    """Words and numbers in order: case-folded, without accents, numbers in digits.

    "1,000" and "1000" are one token, "2.50" is "2.5", "forty-two" is "42", "one hundred" is "100".
    A minus sign belongs to a number unless a word or a number stands right before it.
    """
    folded = unicodedata.normalize("NFKD", text.replace("−", "-").casefold())
    plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return list(_joined([_number(token) for token in _TOKEN.findall(plain)]))


def _number(token: str) -> str:
    """Digits without thousands separators and trailing zeros; other tokens as they are."""
    if not token.lstrip("-")[:1].isdigit():
        return token
    digits = token.replace(",", "")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Replace runs of number words up to 999 by digits."""
    at = 0
    while at < len(words):
        value, length = _spelled(words[at:])
        yield str(value) if length else words[at]
        at += max(length, 1)


def _spelled(words: Sequence[str]) -> tuple[int, int]:
    """The number that ``words`` begin with and how many words spell it; (0, 0) if none."""
    value, length = _below_hundred(words)
    if not length or words[length : length + 1] != ["hundred"]:
        return value, length
    value, length = 100 * value, length + 1
    joiner = 1 if words[length : length + 1] == ["and"] else 0
    rest, more = _below_hundred(words[length + joiner :])
    return (value + rest, length + joiner + more) if more else (value, length)


def _below_hundred(words: Sequence[str]) -> tuple[int, int]:
    first = _NUMBER_WORDS.get(words[0]) if words else None
    if first is None:
        return 0, 0
    unit = _NUMBER_WORDS.get(words[1], 0) if len(words) > 1 else 0
    return (first + unit, 2) if first >= 20 and 0 < unit < 10 else (first, 1)


def _begins(line: Sequence[str], start: int, words: Sequence[str]) -> bool:
    return bool(words) and list(line[start : start + len(words)]) == list(words)


def _first_of(line: Sequence[str], options: Sequence[list[str]]) -> list[str] | None:
    """The option named first in ``line``; of several that begin at one word, the longest."""
    for start in range(len(line)):
        here = [words for words in options if _begins(line, start, words)]
        if here:
            return max(here, key=len)
    return None
