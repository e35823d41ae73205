"""Where a dish is from, what a thing is made of, what a sauce derives from, what a term means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evals.chef.reference import (
    Phrase,
    Reference,
    contains,
    content_stems,
    ingredients_of,
    places_of,
)
from evals.chef.statements import Statement, Verdict
from evals.chef.text import Mention, denied, stems
from evals.judges.matching import words

DEFINED, NOT_DEFINED = 0.5, 0.3
"""Shares of a definition's words that a sentence must have to state it, and may have at most to be
said to state another."""
LATEST = 3
"""Words before what a sentence is about."""
NEAR = 5
"""Words between a name and what opens a statement about it."""


def regions(sentence: str, reference: Reference) -> Iterator[Statement]:
    """Where a dish is from: a place named as an origin in its sentence, nearest first."""
    found = words(sentence)
    found_stems = stems(found)
    mentions = reference.dishes.find(found)
    origins = _origins(found, found_stems, mentions, reference)
    for mention in mentions:
        entry = reference.entry(mention.key)
        own = _areas_of([entry["region"], *entry["city"]], reference)
        near = [
            (min(abs(at - mention.start), abs(at - mention.end)), area)
            for at, area in origins
            if not mention.start <= at < mention.end
        ]
        if not near or "france_large" in own or not own:
            continue
        nearest = min(near)[0]
        stated = {area for distance, area in near if distance == nearest}
        every = {area for _, area in near}
        agree = not stated.isdisjoint(own)
        # another place beside the right one ("unlike Provence, ...") contradicts nothing
        verdict: Verdict = "correct" if agree else "unknown" if every & own else "contradicted"
        yield Statement("region", mention.key, verdict, sentence, entry["region"])


def _origins(
    found: Sequence[str],
    found_stems: Sequence[str],
    mentions: Sequence[Mention],
    reference: Reference,
) -> list[tuple[int, str]]:
    """Positions and areas of places that are named as where something is from."""
    listed = reference.words
    names = {i for one in mentions for i in range(one.start, one.end)}
    edges = {i for one in mentions for i in (one.start - 1, one.end)}
    places = []
    for area, phrases in reference.areas.items():
        for phrase in phrases:
            for at in places_of(found_stems, phrase):
                end = at + len(phrase)
                if at in names or denied(found, at):
                    continue
                around = found_stems[max(0, at - 4) : at]
                if any(contains([one], drink) for one in around for drink in listed["drink"]):
                    continue
                before = [one for one in found_stems[max(0, at - 3) : at] if one != "the"]
                opened = any(tuple(before[-len(one) :]) == one for one in listed["origin"])
                described = end in {one.start for one in mentions} or at in edges
                thing = any((one,) in listed["thing"] for one in found_stems[end : end + 2])
                if opened or described or thing:
                    places.append((at, area))
    return places


def _areas_of(names: Sequence[str], reference: Reference) -> set[str]:
    """Areas that the places of an entry lie in."""
    found = [stems(name) for name in names]
    return {
        area
        for area, phrases in reference.areas.items()
        if any(contains(one, phrase) for one in found for phrase in phrases)
    }


def ingredients(sentence: str, reference: Reference) -> Iterator[Statement]:
    """What a thing is made of, where a sentence opens a statement of it."""
    found = words(sentence)
    found_stems = stems(found)
    mentions = reference.made_of.find(found)
    if not mentions or mentions[0].start > LATEST:
        return
    mention = mentions[0]  # what a sentence is about comes first, what it is made of after
    if reference.children.find(found[mention.end :]):  # it tells what is made from it
        return
    rest, rest_stems = found[mention.end :], found_stems[mention.end :]
    opening = rest_stems[:NEAR]
    if sentence.strip().endswith("?") or not (
        any((one,) in reference.words["made"] for one in opening) or _colon_after(sentence, mention)
    ):
        return
    if any((one,) in reference.words["served"] for one in rest_stems):
        return
    entry = reference.entry(mention.key)
    own = ingredients_of(entry)
    stated = [one for one in own if any(_all_stated(rest, rest_stems, phrase) for phrase in one)]
    foods = _named(rest, rest_stems, reference.foods)
    known = ", ".join([*entry.get("ingredients", ()), *entry.get("base", ())])
    verdict = _made_of(mention.key, entry, own, stated, foods, rest, rest_stems, reference)
    if verdict is not None:
        yield Statement("ingredients", mention.key, verdict, sentence, known)


def _made_of(
    key: str,
    entry: object,
    own: Sequence[tuple[Phrase, ...]],
    stated: Sequence[tuple[Phrase, ...]],
    foods: set[Phrase],
    rest: Sequence[str],
    rest_stems: Sequence[str],
    reference: Reference,
) -> Verdict | None:
    if key.startswith("mother_sauces."):
        other = _other_base(own, rest, rest_stems, reference)
        if other:
            return "contradicted"
    if len(stated) >= 2 or (stated and 2 * len(stated) >= len(own)):
        return "correct"
    if stated:
        return "unknown"
    return "contradicted" if len(foods) >= 2 else None


def _other_base(
    own: Sequence[tuple[Phrase, ...]],
    rest: Sequence[str],
    rest_stems: Sequence[str],
    reference: Reference,
) -> bool:
    """Whether a sentence gives a mother sauce another's liquid, fat or colour of roux."""
    mine = {phrase for one in own for phrase in one}
    roux = _named(rest, rest_stems, reference.words["roux"])
    if roux and roux.isdisjoint(mine) and any(phrase[-1] == "roux" for phrase in mine):
        return True
    bases = _named(rest, rest_stems, reference.words["bases"])
    return bool(bases) and not any(
        phrase[-1] == base[-1] or base == phrase for base in bases for phrase in mine
    )


def _colon_after(sentence: str, mention: Mention) -> bool:
    head, colon, _ = sentence.partition(":")
    return bool(colon) and len(words(head)) == mention.end


def _stated(found: Sequence[str], found_stems: Sequence[str], phrase: Phrase) -> bool:
    return any(not denied(found, at) for at in places_of(found_stems, phrase))


def _all_stated(found: Sequence[str], found_stems: Sequence[str], phrase: Phrase) -> bool:
    """Whether all words of an ingredient are stated, in any order: "apples caramelised"."""
    return all(_stated(found, found_stems, (one,)) for one in phrase)


def _named(
    found: Sequence[str], found_stems: Sequence[str], phrases: frozenset[Phrase]
) -> set[Phrase]:
    return {phrase for phrase in phrases if _stated(found, found_stems, phrase)}


def derivatives(sentence: str, reference: Reference) -> Iterator[Statement]:
    """Which mother sauce a sauce derives from, where a sentence says so."""
    found = words(sentence)
    found_stems = stems(found)
    children = [one for one in reference.children.find(found) if not denied(found, one.start)]
    mothers = {
        one.key.partition(".")[2]: one
        for one in reference.sauces.find(found)
        if one.key.startswith("mother_sauces.")
    }
    related = any((one,) in reference.words["relation"] for one in found_stems)
    for child in children[:1]:
        own = reference.mothers_of[child.key]
        named = {m for m, one in mothers.items() if one.start >= child.end and m != child.key}
        with_it = found[child.end : child.end + 1] == ["is"] and "with" in found[child.end :]
        if (
            named
            and (related or with_it)
            and not any(denied(found, mothers[m].start) for m in named)
        ):
            verdict: Verdict = "correct" if named & own else "contradicted"
            yield Statement(
                "derivative", f"mother_sauces.{min(own)}.{child.key}", verdict, sentence,
                ", ".join(sorted(own)),
            )  # fmt: skip


def techniques(sentence: str, reference: Reference) -> Iterator[Statement]:
    """What a term means, where a sentence defines it."""
    found = words(sentence)
    found_stems = stems(found)
    mentions = [one for one in reference.techniques.find(found) if one.start <= 2]
    if not mentions or sentence.strip().endswith("?"):
        return
    mention = mentions[0]
    opening = found_stems[mention.end : mention.end + 4]
    if not (
        any((one,) in reference.words["definition"] for one in opening)
        or _colon_after(sentence, mention)
    ):
        return
    rest = set(found_stems[mention.end :])
    own = _share(rest, _meaning(reference, mention.key))
    best = max(
        _share(rest, _meaning(reference, key)) for key in _defined(reference) if key != mention.key
    )
    verdict: Verdict = "unknown"
    if own >= DEFINED:
        verdict = "correct"
    elif best >= DEFINED + 0.1 and own <= NOT_DEFINED:
        verdict = "contradicted"
    if mention.key.startswith("techniques.") or verdict == "contradicted":
        meaning = " / ".join(_meaning_texts(reference, mention.key))
        yield Statement("technique", mention.key, verdict, sentence, meaning)


def _defined(reference: Reference) -> list[str]:
    return [f"techniques.{key}" for key in reference.entries["techniques"]] + [
        f"preparations.{key}" for key in reference.entries["preparations"]
    ]


def _meaning_texts(reference: Reference, key: str) -> list[str]:
    entry = reference.entry(key)
    if "definition" in entry:
        return [part.strip() for part in str(entry["definition"]).split(";")]
    return [" ".join(entry["ingredients"])]


def _meaning(reference: Reference, key: str) -> list[tuple[str, ...]]:
    """Content words of each sense of a term."""
    return [content_stems(text) for text in _meaning_texts(reference, key)]


def _share(found: set[str], senses: Sequence[tuple[str, ...]]) -> float:
    """Largest share of a sense's content words that stand in a sentence; two at least."""
    shares = [0.0]
    for sense in senses:
        hit = sum(one in found for one in sense)
        if hit >= 2 or len(sense) == 1 == hit:
            shares.append(hit / len(sense))
    return max(shares)
