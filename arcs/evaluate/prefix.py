"""What every prompt of a model and prompt style begins with, known before any prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from evals.humaneval.prompts import CHAT_TEMPLATE, PromptStyle
from models.chat import ChatEncoder, Message

SHORTEST = 8
"""Ids below which copying a stream is not worth it."""
_BEGINNINGS = (
    "a",
    "Z",
    "7",
    "_",
    " ",
    "\n",
    "\n\n",
    "\t",
    '"',
    "#",
    "(",
    "@",
    "-",
    "é",
    "好",
    "🙂",
)
"""One of each kind of character that tokenizers join with what stands before it."""


def template_prefix(encoder: ChatEncoder, style: PromptStyle) -> tuple[int, ...]:
    """Ids that the chat template and the instruction give every prompt; () if fewer than 8.

    Found by rendering artificial problems that differ from their first character on: it depends
    on template, tokenizer and prompt style alone, never on the items of a run. A problem whose
    beginning a tokenizer joins in yet another way does not begin with it, and is read whole.
    """
    if style == "raw":  # nothing stands before the problem but, at most, a BOS
        return ()
    prompts = [
        encoder.encode_prompt([Message("user", CHAT_TEMPLATE.replace("{prompt}", first + "x"))]).ids
        for first in _BEGINNINGS
    ]
    common = _common(prompts)
    return common if len(common) >= SHORTEST else ()


def _common(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    columns = takewhile(lambda ids: len(set(ids)) == 1, zip(*sequences, strict=False))
    return tuple(ids[0] for ids in columns)
