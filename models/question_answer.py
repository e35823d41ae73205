"""How a model without a chat template is asked one question: plain text, stated once, hashed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

SLOT = "{question}"
_BYTES = ("\n", "Ċ", "<0x0A>")
"""How vocabularies write a line's end: as it is, in byte-level BPE, as a byte to fall back on."""


@dataclass(frozen=True)
class RawTemplate:
    """Text around a question that a base model continues with an answer."""

    text: str
    """With :data:`SLOT` where the question stands."""
    stops_at_line_end: bool
    """A base model has no end of turn: the answer is over where its first line with text is."""

    def render(self, question: str) -> str:
        """The prompt."""
        return self.text.replace(SLOT, question)

    @property
    def sha256(self) -> str:
        """Of everything here (hex)."""
        return hashlib.sha256(repr((self.text, self.stops_at_line_end)).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "text": self.text, "stops_at_line_end": self.stops_at_line_end, "sha256": self.sha256,
        }  # fmt: skip


QUESTION_ANSWER = RawTemplate(f"Question: {SLOT}\nAnswer:", stops_at_line_end=True)


def line_end_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids of all tokens whose text holds a line's end, ascending."""
    likely = [
        i for token, i in tokenizer.get_vocab().items() if any(one in token for one in _BYTES)
    ]
    return tuple(sorted(i for i in likely if "\n" in tokenizer.decode([i])))
