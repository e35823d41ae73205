"""Separates a reasoning model's thoughts from its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAG = re.compile(r"<(/?)(?:think|thinking|thought)>", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What is left of a completion when its thoughts are dropped."""

    text: str
    unclosed: bool
    """The completion ended inside a thought."""
    thoughts: str = ""
    """What was dropped, without its tags."""


def drop_thoughts(completion: str, *, think_open: bool) -> Answer:
    """The answer outside of every think block.

    A block that is never closed reaches to the end. ``think_open`` says that the prompt
    already opened one (its template ends in ``<think>``), in which case the completion
    carries no opening tag at all: without the flag, a completion cut inside its thoughts
    looks like an answer. A closing tag that nothing opened ends a thought that began
    before it, so what precedes it is dropped too.
    """
    kept: list[str] = []
    thought: list[str] = []
    inside = think_open
    position = 0
    for tag in _TAG.finditer(completion):
        if tag.group(1):
            between = completion[position : tag.start()]
            thought += [between] if inside else [*kept, between]
            if not inside:
                kept.clear()
            inside = False
            position = tag.end()
        else:  # one that opens inside another is no text, either
            (thought if inside else kept).append(completion[position : tag.start()])
            position = tag.end()
            inside = True
    (thought if inside else kept).append(completion[position:])
    thoughts = "\n".join(one.strip() for one in thought if one.strip())
    return Answer(text="".join(kept), unclosed=inside, thoughts=thoughts)
