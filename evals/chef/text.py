"""Sentences, words and names of a cooking answer, in the form in which they are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evals.judges.matching import NEGATORS, words

_LATEX = (
    (re.compile(r"\\(?:SI|qty)\{([^}]*)\}\{\\(?:degree)?(celsius|fahrenheit)\}", re.I), r"\1 °\2"),
    (re.compile(r"\\(?:text|mathrm|mathit|textrm|rm)\s*\{?\s*([CF])\s*\}?"), r"\1"),
    (re.compile(r"\^\s*\{?\s*\\?(?:circ|degree|o)\s*\}?|\{?\\(?:degree|textdegree|circ)\}?"), "°"),
    (re.compile(r"\\(?:celsius)"), "°C"),
    (re.compile(r"\\(?:fahrenheit)"), "°F"),
    (re.compile(r"\\[,;:! ]|~|\\(?:quad|thinspace)"), " "),
    (re.compile(r"\\text(?:endash|emdash)|--"), "-"),
    (re.compile(r"\\[()\[\]]|\$|[{}]"), ""),
)
_SIGNS = str.maketrans({"º": "°", "˚": "°", "℃": "°C", "℉": "°F", "*": " ", "_": " ", "’": "'"})
_SENTENCE = re.compile(r"(?<=[.!?;])(?:[\"'”’)]*)\s+|\n+|(?<=;)")
_ENDINGS = ("ing", "ed", "es", "s", "e")


def plain(text: str) -> str:
    """The text without LaTeX, Markdown's stars, and other spellings of the degree sign."""
    for pattern, by in _LATEX:
        text = pattern.sub(by, text)
    text = re.sub(r"\bnothing but\b", "only", text, flags=re.IGNORECASE)  # it denies nothing
    return re.sub(r"°(celsius|fahrenheit)", lambda m: f"°{m[1][0]}", text.translate(_SIGNS))


def sentences(text: str) -> list[str]:
    """Sentences of a plain text; a semicolon and a line end one too."""
    return [one.strip() for one in _SENTENCE.split(text) if one.strip()]


def clauses(sentence: str) -> list[str]:
    """Parts between commas; a decimal comma is none."""
    return [one for one in re.split(r",\s+|\s+[–—]\s+", sentence) if one.strip()]


def stem(word: str) -> str:
    """A word without its ending: "melts", "melted" and "melting" are one.

    Four letters stay at least, so that short words are compared whole.
    """
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word


def stems(text: str | Sequence[str]) -> list[str]:
    """Stems of a text's words, its marks included."""
    found = words(text) if isinstance(text, str) else text
    return [stem(word) for word in found]


def denied(found: Sequence[str], at: int) -> bool:
    """Whether a negator stands at most four words before, in the same clause."""
    for word in reversed(found[max(0, at - 4) : at]):
        if word in NEGATORS:
            return True
        if not word[0].isalnum():
            return False
    return False


@dataclass(frozen=True)
class Mention:
    """A name where it stands in a sentence."""

    key: str
    start: int
    end: int
    """Word positions, the last excluded."""


class Names:
    """Finds names in words: whole words only, the longest name at each place."""

    def __init__(self, spellings: Iterable[tuple[str, str]]) -> None:
        """``spellings``: pairs of an entry's key and one spelling of its name."""
        self._keys: dict[tuple[str, ...], list[str]] = {}
        for key, spelling in spellings:
            name = tuple(map(_singular, words(spelling)))
            if name and key not in self._keys.setdefault(name, []):
                self._keys[name].append(key)
        self._longest = max(map(len, self._keys), default=0)

    def find(self, found: Sequence[str]) -> list[Mention]:
        """Names in the words of a sentence, from left to right, none inside another."""
        plain_words = [_singular(word) for word in found]
        mentions, at = [], 0
        while at < len(found):
            for size in range(min(self._longest, len(found) - at), 0, -1):
                keys = self._keys.get(tuple(plain_words[at : at + size]))
                if keys:
                    mentions += [Mention(key, at, at + size) for key in keys]
                    at += size
                    break
            else:
                at += 1
        return mentions


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] in "sx" and word[-2] != "s" else word
