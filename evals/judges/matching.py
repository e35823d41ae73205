"""Whether a text states a phrase: normalised words, negation, numbers with their units."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
_APOSTROPHES = dict.fromkeys(map(ord, "‘’ʼ`"), "'")
_DEGREES = re.compile(r"\s*(?:°|degrees?|deg\.?)\s*(celsius|centigrade|fahrenheit|c|f)\b")
_WORD = re.compile(r"(?<![\w])-?\d+(?:[.,]\d+)*|°[cf]|\w+(?:'\w+)?|[.;:!?\n]+|,")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_UNIT_TEXT = """
    g grams gram grammes, min minutes minute mins, h hours hour hrs, l litres litre liters liter,
    kg kilograms kilogram kilos kilo, mm millimetres millimetre millimeters millimeter,
    cm centimetres centimetre centimeters centimeter, % percent cent
"""
_UNITS = {word: unit.split()[0] for unit in _UNIT_TEXT.split(",") for word in unit.split()[1:]}
"""Long form -> short form."""
_NEGATOR_TEXT = """
    no not never neither nor none nothing without cannot isn't aren't wasn't weren't don't doesn't
    didn't won't can't couldn't shouldn't wouldn't mustn't hasn't haven't hardly unlike avoid
"""
NEGATORS = frozenset(_NEGATOR_TEXT.split())
"""Words that deny what follows them in their clause."""
_FALSE_TEXT = "myth misconception incorrect false wrong untrue mistaken"
FALSE_WORDS = frozenset(_FALSE_TEXT.split())
"""Words that deny what else their clause says."""
_INSTEAD = ("rather than", "instead of", "as opposed to", "contrary to")
"""What follows these is denied."""
_TURNS = frozenset(["but", "however", "though", "although", "yet", "because", "since", "while"])
"""Words at which a clause, and with it a negation, ends."""
_REACH = 6
"""Words over which a negator still denies what follows."""
_STOPS = re.compile(r"[.;:!?\n]+|,")


def words(text: str) -> list[str]:
    """Words, numbers and marks that end a clause: folded case and accents, one form a number.

    Hyphens inside words are spaces, the sign of "-20 °c" stays; "82 degrees C" is "82 °c",
    "1,000" is "1000", "ten minutes" stays in words.
    """
    folded = unicodedata.normalize("NFKD", text.translate(_DASHES | _APOSTROPHES).casefold())
    plain = "".join(c for c in folded if not unicodedata.combining(c)).replace("œ", "oe")
    plain = re.sub(r"(?<=\w)'s\b", "", plain)
    plain = re.sub(r"\b(d|l|j|qu)'(?=[a-z])", r"\1 ", plain)  # French: d'Espelette
    plain = _DEGREES.sub(lambda m: f" °{m[1][0] if m[1][0] == 'f' else 'c'} ", plain)
    plain = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", plain)
    plain = re.sub(r"(?<=\d)-(?=\d)", " to ", plain)
    plain = re.sub(r"(?<=\d)(?=[a-z%°])", " ", plain).replace("%", " % ")
    return [_one(word) for word in re.findall(_WORD.pattern + r"|%", plain)]


def _one(word: str) -> str:
    if _THOUSANDS.fullmatch(word):
        word = word.replace(",", "")
    return _UNITS.get(word, word)


def is_negative(text: Sequence[str]) -> bool:
    """Whether the words of ``text`` deny something."""
    joined = f" {' '.join(text)} "
    return any(word in NEGATORS or word in FALSE_WORDS for word in text) or any(
        f" {one} " in joined for one in _INSTEAD
    )


def states(text: Sequence[str], phrase: Sequence[str], *, denied_too: bool = False) -> bool:
    """Whether the words of ``text`` contain ``phrase`` where nothing denies it.

    A phrase that is itself negative ("no potato") counts wherever it stands, and so does every
    phrase with ``denied_too``: what shows a negative claim is often denied in it.
    """
    size = len(phrase)
    wanted, free = list(phrase), denied_too or is_negative(phrase)
    return bool(size) and any(
        list(text[at : at + size]) == wanted and (free or not _denied(text, at, at + size))
        for at in range(len(text) - size + 1)
    )


def _denied(text: Sequence[str], start: int, end: int) -> bool:
    """Whether words of the same clause deny what stands at ``start`` to ``end``."""
    first, last = start, end
    while first > 0 and not _ends_clause(text[first - 1]):
        first -= 1
    while last < len(text) and not _ends_clause(text[last]):
        last += 1
    before, after = text[first:start], text[end:last]
    joined = f" {' '.join(before)} "
    return (
        any(word in NEGATORS for word in before[-_REACH:])
        or any(f" {one} " in joined for one in _INSTEAD)
        or not FALSE_WORDS.isdisjoint((*before, *after))
    )


def _ends_clause(word: str) -> bool:
    return word in _TURNS or _STOPS.fullmatch(word) is not None
