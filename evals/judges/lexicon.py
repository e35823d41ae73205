"""Words that hedge and words that assert, for the lexical judge of delivery.

After the categories of Hyland, "Hedging in Scientific Research Articles" (1998): modal
auxiliaries, epistemic verbs, adverbs and adjectives, approximators of content (not of numbers),
and the plain statement that one does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEDGES = """
might may could perhaps maybe possibly probably presumably apparently seemingly conceivably
arguably supposedly likely unlikely
seem seems seemed appear appears appeared suggest suggests suspect believe think guess assume
unclear uncertain unsure debatable disputed debated contested unknown speculative
i'm not sure | i am not sure | not entirely sure | not completely sure | not certain | hard to say
difficult to say | hard to tell | i don't know | i do not know | don't know for sure
can't be sure | cannot be sure | can't tell | cannot tell | can't say | cannot say | no way to know
no way of knowing | not known
i would guess | my guess | i'd guess | i would say | i'd say | as far as i know | to my knowledge
if i remember | if i recall | it depends | depends on | that depends | it varies | varies widely
more or less | in some cases | in many cases | some say | some people | some sources | others say
opinions differ | there is debate | there is disagreement | no consensus | either of
one possibility | another possibility
could be either | need more information | without more information
without knowing | would need to know | tends to | tend to | in theory | i wouldn't swear
don't quote me | take this with
"""
_NO_HEDGES = """
may i | you may | may be used | might want to | may want to | could you | you could
likely to be asked | i think you mean | think about
think of | don't think twice | believe it or not | guess what
no doubt | without doubt | might as well | suggest you | i suggest | i'd suggest | may 1 | in may
"""
"""Idioms with a hedging word that doubt nothing: advice, permission, the month."""
_BOOSTERS = """
definitely certainly clearly obviously undoubtedly absolutely always never exactly precisely
of course | no doubt | without doubt | in fact | the answer is | for sure | there is no question
"""


def _patterns(text: str) -> re.Pattern[str]:
    phrases: list[str] = []
    for line in text.strip().splitlines():
        if "|" in line or (" " in line.strip() and line.strip().split()[0] in {"of", "i'm"}):
            phrases += [part.strip() for part in line.split("|")]
        else:
            phrases += line.split()
    longest_first = sorted({one for one in phrases if one}, key=lambda one: (-len(one), one))
    return re.compile(r"(?<![\w'])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w'])")


HEDGES, IDIOMS, BOOSTERS = map(_patterns, (_HEDGES, _NO_HEDGES, _BOOSTERS))


def hedges(sentence: str) -> int:
    """Hedging expressions in a lower-case sentence, idioms left out."""
    return len(HEDGES.findall(IDIOMS.sub(" ", sentence)))


def boosters(sentence: str) -> int:
    """Expressions of certainty in a lower-case sentence."""
    return len(BOOSTERS.findall(sentence))


def everything() -> Iterable[str]:
    """What decides, for the lexicon's hash."""
    return (HEDGES.pattern, IDIOMS.pattern, BOOSTERS.pattern)
