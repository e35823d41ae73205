"""Whether a text looks finished, judged from the text alone.

For results that store no finish reason. The rules read prose: a finished list, table or program
need not end in a full stop, so a count of unfinished texts is evidence, never proof.
"""

from __future__ import annotations

import re

_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’»」』*_)\]]*\Z")
_INNER_SENTENCE_END = re.compile(r"[.!?][\"'”’»*_)\]]*(?=\s)|[。！？]")
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+", re.MULTILINE)
_ANSWER = re.compile(r"#{4}[ \t]*[-+$€]?[\d.,:/%]+|\\boxed\{.*\}|.*\$")
"""A last line that is an answer by convention: ``#### 42``, ``\\boxed{42}``, a closed formula."""
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})(.*)$", re.MULTILINE)
SHORT_ITEM = 60
"""Characters up to which a list item may be a phrase; longer ones are sentences."""
MIN_SENTENCES = 2
"""Sentence ends inside a text from which on it is read as prose."""


def ends_a_sentence(text: str) -> bool:
    """Whether the right-stripped text ends in . ! or ? and no code fence is left open.

    Quotes, asterisks, underscores and closing brackets may follow the mark. An ellipsis counts
    as an end. This is the rule behind the paper's counts (PAPER.md 5.9).
    """
    return bool(_SENTENCE_END.search(text.rstrip())) and not has_open_fence(text)


def has_open_fence(text: str) -> bool:
    """Whether a fenced code block (CommonMark 4.5: ``` or ~~~) is not closed.

    A block is closed by a line of the same mark, at least as long, and nothing behind it.
    """
    opened: str | None = None
    for mark, rest in _FENCE.findall(text):
        if opened is None:
            opened = mark
        elif mark[0] == opened[0] and len(mark) >= len(opened) and not rest.strip():
            opened = None
    return opened is not None


def ends_a_block(text: str) -> bool:
    """Whether the text ends with something that is complete without a full stop.

    A closed code fence, a finished table row, a closing bracket of data, a rule (---), an
    answer by convention (``#### 42``), an item of a list whose items have no full stops.
    """
    if has_open_fence(text):
        return False
    last = text.rstrip().rsplit("\n", maxsplit=1)[-1].strip()
    is_rule = len(last) >= 3 and set(last) <= set("-*_=")
    is_row = last.startswith("|") and last.endswith("|") and len(last) > 1
    is_answer = _ANSWER.fullmatch(last) is not None
    is_data = last.startswith(("```", "~~~")) or last.endswith(("}", "]"))
    return is_rule or is_row or is_answer or is_data or _ends_a_bare_list(text)


def _ends_a_bare_list(text: str) -> bool:
    """Whether the text ends in a list of short items none of which has a full stop."""
    lines = [line for line in text.rstrip().splitlines() if line.strip()]
    items = [line for line in lines if _LIST_MARK.match(line)]
    if len(items) < 3 or items[-1] is not lines[-1]:
        return False
    short = max(len(line.strip()) for line in items) <= SHORT_ITEM
    return short and not any(_SENTENCE_END.search(line.rstrip()) for line in items)


def is_prose(text: str) -> bool:
    """Whether the text has enough sentences for the missing of an end to mean something."""
    bare = _LIST_MARK.sub("", text.rstrip())  # the full stop of "1." ends no sentence
    return len(_INNER_SENTENCE_END.findall(bare)) >= MIN_SENTENCES


def looks_unfinished(text: str) -> bool | None:
    """Whether a prose text, or one with an open code fence, breaks off.

    None where nothing can be said: a text that is not prose (one word, a number, data).
    """
    if has_open_fence(text):
        return True
    if not is_prose(text):
        return None
    return not (ends_a_sentence(text) or ends_a_block(text))
