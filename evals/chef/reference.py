"""The cuisine reference, indexed for checking: names, cues, places, foods."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evals.chef.text import Names, stem, stems
from evals.items.load import DATA, french_cuisine
from models.fingerprint import file_sha256

CUES = Path(__file__).resolve().parent / "data" / "cues.toml"
_SMALL = frozenset(["a", "an", "the", "of", "and", "or", "with", "in", "on", "to", "it", "its",
                    "as", "at", "by", "for", "is", "so", "that", "into", "over", "such", "often",
                    "usually", "also", "some", ",", ".", ";", ":"])  # fmt: skip

Phrase = tuple[str, ...]


@dataclass(frozen=True)
class Word:
    """A word, or several, that must stand in a sentence."""

    stems: Phrase
    exact: str | None = None

    def stands_in(self, found: Sequence[str], found_stems: Sequence[str]) -> bool:
        """Whether it stands in the words of a sentence."""
        if self.exact is not None:
            return self.exact in found
        return contains(found_stems, self.stems)


@dataclass(frozen=True)
class Cue:
    """When a temperature in a sentence is an entry's: each group has a word in the sentence."""

    groups: tuple[tuple[Word, ...], ...]
    general: bool
    never: tuple[Word, ...] = ()
    """Words with which the number is of something else: an oven's, not the core's."""

    def holds(self, found: Sequence[str], found_stems: Sequence[str]) -> bool:
        """Whether the words of a sentence name the entry."""
        return all(
            any(one.stands_in(found, found_stems) for one in group) for group in self.groups
        ) and not any(one.stands_in(found, found_stems) for one in self.never)


@dataclass(frozen=True)
class Reference:
    """Everything that answers are held against."""

    entries: Mapping[str, Mapping[str, Any]]
    """Section -> key -> entry of the cuisine reference."""
    temperature_cues: Mapping[str, Cue]
    areas: Mapping[str, tuple[Phrase, ...]]
    """Area -> its places and what comes from it is called."""
    words: Mapping[str, frozenset[Phrase]]
    dishes: Names
    made_of: Names
    """Dishes, preparations and mother sauces: what is made of something."""
    techniques: Names
    cuts: Names
    times: Names
    sauces: Names
    children: Names
    """Sauces that derive from a mother sauce."""
    mothers_of: Mapping[str, frozenset[str]]
    foods: frozenset[Phrase]
    """Stems of every food that the reference, or an answer, names as an ingredient."""
    sha256: tuple[str, str]
    """Of the reference's and the cues' files."""

    def entry(self, key: str) -> Mapping[str, Any]:
        """An entry by ``section.key``."""
        section, _, name = key.partition(".")
        found: Mapping[str, Any] = self.entries[section][name]
        return found


def contains(found: Sequence[str], phrase: Phrase) -> bool:
    """Whether ``phrase`` stands in ``found``, word beside word."""
    return bool(places_of(found, phrase))


def places_of(found: Sequence[str], phrase: Phrase) -> list[int]:
    """Where ``phrase`` begins in ``found``."""
    if phrase[0] not in found:  # most are not, and this is quick
        return []
    size, wanted = len(phrase), list(phrase)
    return [i for i in range(len(found) - size + 1) if list(found[i : i + size]) == wanted]


def content_stems(text: str) -> tuple[str, ...]:
    """Stems of the words of a definition that carry it."""
    return tuple(dict.fromkeys(one for one in stems(text) if one not in _SMALL and one.isalnum()))


@cache
def load_reference() -> Reference:
    """Read both files once."""
    entries = {name: table for name, table in french_cuisine().items() if name != "meta"}
    cues = tomllib.loads(CUES.read_text(encoding="utf-8"))
    mothers = _mothers_of(entries["mother_sauces"])
    listed = {name: frozenset(_phrases(text)) for name, text in cues["words"].items()}
    return Reference(
        entries=entries,
        temperature_cues=_temperature_cues(cues),
        areas={area: _phrases(text) for area, text in cues["places"].items()},
        words=listed,
        dishes=_names(entries, "regional_dishes"),
        made_of=_names(entries, "regional_dishes", "preparations", "mother_sauces"),
        techniques=_names(entries, "techniques", "preparations"),
        cuts=_names(entries, "knife_cuts"),
        times=_names(entries, "times"),
        sauces=_names(entries, "mother_sauces", "preparations"),
        children=Names((child, child.replace("_", " ")) for child in mothers),
        mothers_of=mothers,
        foods=listed["foods"] | frozenset(
            phrase
            for section in ("regional_dishes", "preparations", "mother_sauces")
            for entry in entries[section].values()
            for ingredient in ingredients_of(entry)
            for phrase in ingredient
        ),
        sha256=(file_sha256(DATA / "french_cuisine.toml"), file_sha256(CUES)),
    )  # fmt: skip


def ingredients_of(entry: Mapping[str, Any]) -> list[tuple[Phrase, ...]]:
    """An entry's ingredients; of each, the alternatives any of which stands for it."""
    listed = [
        *entry.get("ingredients", ()), *entry.get("base", ()), *entry.get("thickener", ()),
        *entry.get("aromatics", ()), *entry.get("acid", ()),
    ]  # fmt: skip
    return [_alternatives(one) for one in listed]


def _alternatives(text: str) -> tuple[Phrase, ...]:
    bare = re.sub(r"\(.*?\)", " ", text)
    parts = re.split(r",| or | and |\bwith\b|\bof\b|\bin\b", bare)
    return tuple(dict.fromkeys(kept for part in parts if (kept := _head(part))))


def _head(part: str) -> Phrase:
    """The last two words of an ingredient, which name it ("lean white fish bones")."""
    found = [one for one in stems(part) if one.isalnum() and one not in _SMALL]
    return tuple(found[-2:])


def _phrases(text: str) -> tuple[Phrase, ...]:
    return tuple(phrase for part in text.split("|") if (phrase := tuple(stems(part.strip()))))


def _names(entries: Mapping[str, Mapping[str, Any]], *sections: str) -> Names:
    return Names(
        (f"{section}.{key}", re.sub(r"\(.*?\)", "", spelling))
        for section in sections
        for key, entry in entries[section].items()
        for spelling in (entry["name"], *entry["aliases"])
    )


def _temperature_cues(cues: Mapping[str, Any]) -> dict[str, Cue]:
    lists, general = cues["lists"], set(cues["general"]["entries"])
    found = {}
    for key, text in cues["temperatures"].items():
        wanted, _, never = text.partition("!")
        groups = tuple(_group(part, lists) for part in wanted.split("&"))
        found[key] = Cue(groups, key in general, _group(never, lists) if never else ())
    return found


def _group(part: str, lists: Mapping[str, str]) -> tuple[Word, ...]:
    found: list[Word] = []
    for one in (piece.strip() for piece in part.split("|")):
        if one in lists:
            found += _group(lists[one], {})
        elif one.startswith("="):
            found.append(Word((stem(one[1:]),), one[1:]))
        else:
            found.append(Word(tuple(stems(one))))
    return tuple(found)


def _mothers_of(sauces: Mapping[str, Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for mother, entry in sauces.items():
        for child, made in entry["derivatives"].items():
            found.setdefault(child, set()).add(mother)
            # a sauce made from a child is of the mother's family: Choron of béarnaise
            for other, other_entry in sauces.items():
                text = " ".join(made).casefold()
                if other != mother and other_entry["name"].casefold().split()[-1] in text:
                    found[child].add(other)
    return {child: frozenset(mothers) for child, mothers in sorted(found.items())}
