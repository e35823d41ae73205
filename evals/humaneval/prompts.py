"""What the model is asked, and where a raw completion stops."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Literal

from evals.humaneval.problems import Problem

PromptStyle = Literal["chat", "raw"]

CHAT_TEMPLATE = (
    "Complete the following Python function. Return only the code, in one ```python block."
    "\n\n```python\n{prompt}\n```"
)
"""Short, because small models ramble after long instructions: on the embedded model a wording
of three sentences left 33 of 164 answers cut off at 1024 tokens, this one 22, with the same pass@1
within one problem."""
RAW_TEMPLATE = "{prompt}"

STOP_STRINGS: tuple[str, ...] = (
    "\ndef ",
    "\nclass ",
    "\nif ",
    "\nprint(",
    "\nassert ",
    "\nimport ",
    "\nfrom ",
    "\n@",
    "\n#",
    "\n```",
)
"""Each begins a line at column 0, which no function body does: the completion is over."""


def chat_instruction(problem: Problem) -> str:
    """The user message of the chat style, before the model's chat template is applied."""
    return CHAT_TEMPLATE.replace("{prompt}", problem.prompt.rstrip())


def raw_prompt(problem: Problem) -> str:
    """The text that a raw completion continues: the prompt exactly as published."""
    return RAW_TEMPLATE.replace("{prompt}", problem.prompt)


def template(style: PromptStyle) -> dict[str, object]:
    """Everything of a style that is not the problem, with its hash, for the manifest."""
    text, stops = (CHAT_TEMPLATE, ()) if style == "chat" else (RAW_TEMPLATE, STOP_STRINGS)
    return {"text": text, "stop_strings": list(stops), "sha256": template_sha256(style)}


def template_sha256(style: PromptStyle) -> str:
    """Hash of everything of a style that is not the problem: template and stop strings."""
    text, stops = (CHAT_TEMPLATE, ()) if style == "chat" else (RAW_TEMPLATE, STOP_STRINGS)
    identity = json.dumps([style, text, list(stops)])
    return hashlib.sha256(identity.encode()).hexdigest()


def find_stop_string(
    text: str, stop_strings: Sequence[str] = STOP_STRINGS
) -> tuple[int, int] | None:
    """Start and end of the earliest stop string in ``text``; None if there is none."""
    found = [(text.find(stop), stop) for stop in stop_strings]
    present = [(start, start + len(stop)) for start, stop in found if start >= 0]
    return min(present, default=None)


def cut_at_stop_string(text: str, stop_strings: Sequence[str] = STOP_STRINGS) -> str:
    """``text`` up to the earliest stop string, or all of it."""
    found = find_stop_string(text, stop_strings)
    return text if found is None else text[: found[0]]


def stop_when(
    decode: Callable[[Sequence[int]], str], stop_strings: Sequence[str] = STOP_STRINGS
) -> Callable[[tuple[int, ...]], bool]:
    """A test of whether the last of the generated ids completed a stop string.

    It is called after every step, so it decodes a tail only. A token stands for a byte or
    more, so a tail of as many ids as the longest stop string has bytes holds that string;
    it is doubled because special tokens decode to nothing and because the first tokens of
    a tail may decode differently out of context (half a character, a dropped space).
    """
    longest = max((len(stop.encode()) for stop in stop_strings), default=0)
    tail_length = 2 * longest + 8

    def completed(ids: tuple[int, ...]) -> bool:
        tail = ids[-tail_length:]
        text = decode(tail)
        present = [stop for stop in stop_strings if stop in text]
        if not present:
            return False
        before = decode(tail[:-1])
        return any(text.count(stop) > before.count(stop) for stop in present)

    return completed
