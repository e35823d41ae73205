"""Chat encoding, once and jointly: text by the template, ids by the tokenizer, mask by position.

Everything that trains, decodes or measures takes token ids from here, so that no engine
tokenises on its own. The template is rendered to text and encoded without added special tokens;
a BOS is added only where the model wants one and the template did not write it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.question_answer import RawTemplate, line_end_ids
from models.stops import configured_stop_ids

THINK_MARKS = (("<think>", "</think>"), ("<|channel>thought", "<channel|>"))
"""How the supported templates open and close a thinking block (Qwen, Gemma 4)."""
PROBE = ("Say something.", "Threearc probe.")
FIRST_IDS = 5


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    content: str


@dataclass(frozen=True)
class EncodedPrompt:
    """What the model is asked to continue."""

    ids: tuple[int, ...]
    text: str
    think_open: bool
    """The prompt ends inside a thinking block, so the answer's text begins with thoughts."""


@dataclass(frozen=True)
class EncodedExample:
    """A prompt and its response as one sequence."""

    ids: tuple[int, ...]
    response_mask: tuple[bool, ...]
    """One per id: True from the first token of the answer through the end-of-turn token."""


def load_tokenizer(path: Path) -> Any:
    """Load the tokenizer in ``path``. Raises UserError when it is missing or damaged."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if not any((path / name).is_file() for name in names):
        raise UserError(
            f"{path} has no tokenizer (tokenizer.json); copy the model's tokenizer files into it"
        )
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"the tokenizer in {path} cannot be loaded ({reason}); fetch or save it again"
        ) from error


class ChatEncoder:
    """Encodes prompts and examples for one model.

    ``thinking``: ask the template for the model's thinking mode, where it has one (off by
    default). ``raw``: how a model *without* a chat template is asked a single question; a model
    that has one is asked by it. Raises UserError when the tokenizer cannot be loaded.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        *,
        thinking: bool = False,
        raw: RawTemplate | None = None,
    ) -> None:
        self.directory = directory
        self.thinking = thinking
        self._tokenizer = load_tokenizer(directory.path)
        template = self._tokenizer.chat_template
        self.template: str | None = template if isinstance(template, str) and template else None
        self.template_sha256 = _sha256(self.template)
        self.thinking_switch = self.template is not None and "enable_thinking" in self.template
        self.bos_id = self._wanted_bos()
        self.end_of_turn_id: int | None = None
        self.stop_ids: tuple[int, ...] = configured_stop_ids(directory.path, self._tokenizer)
        if self.template is not None:
            self.end_of_turn_id = self._find_end_of_turn()
            self.stop_ids = tuple(sorted({*self.stop_ids, self.end_of_turn_id}))
        self.raw = raw if self.template is None else None
        by_line = self.raw is not None and self.raw.stops_at_line_end
        self._line_ends = frozenset(line_end_ids(self._tokenizer) if by_line else ())
        self.end_ids: tuple[int, ...] = tuple(sorted({*self.stop_ids, *self._line_ends}))
        """What an answer ends with that is no part of it: stop ids, and a raw answer's line end."""
        self.stop_when: Callable[[tuple[int, ...]], bool] | None = (
            self._line_is_over if by_line else None
        )
        """Given the ids generated so far: is a raw answer over? None where stop ids say it."""

    # -- encoding ---------------------------------------------------------------------------

    def encode_prompt(self, messages: Sequence[Message]) -> EncodedPrompt:
        """Render ``messages`` with the generation prompt and encode them.

        A single question is asked by the raw template where there is one. Raises CapabilityError
        without any template, UserError when the template refuses the messages or the result has
        two BOS tokens.
        """
        if self.raw is not None and [one.role for one in messages] == ["user"]:
            return self.encode_raw(self.raw.render(messages[0].content))
        text = self._render(messages, generation_prompt=True)
        return EncodedPrompt(self._encode(text), text, _ends_inside_thinking(text))

    def encode_raw(self, text: str) -> EncodedPrompt:
        """Encode plain text for continuation, with one BOS if the model uses BOS."""
        if not text:
            raise UserError("cannot encode an empty prompt")
        return EncodedPrompt(self._encode(text), text, _ends_inside_thinking(text))

    def encode_example(self, prompt: str, response: str, *, item: str = "") -> EncodedExample:
        """Encode one user turn and its answer; see :meth:`encode_reply`."""
        return self.encode_reply([Message("user", prompt)], response, item=item)

    def encode_reply(
        self, context: Sequence[Message], response: str, *, item: str = ""
    ) -> EncodedExample:
        """Encode a context that ends with the user's turn and its answer jointly, once.

        ``item`` names it in errors. Raises UserError when the generation prompt is not a token
        prefix of the conversation (then training and generation would see different text), or
        when the answer is empty or contains an end-of-turn token.
        """
        if not response.strip():
            raise UserError(
                f"{_the(item)}the answer is empty: nothing but its end-of-turn would be learnt"
            )
        answer = Message("assistant", response)
        asked = self.encode_prompt(context)
        ids = self._encode(self._render([*context, answer], generation_prompt=False))
        start = len(asked.ids)
        if ids[:start] != asked.ids:
            raise UserError(self._prefix_complaint(asked.ids, ids, item))
        ends = [i for i in range(start, len(ids)) if ids[i] in self.stop_ids]
        if len(ends) != 1 or ends[0] == start:
            raise UserError(
                f"{_the(item)}the rendered answer has {len(ends)} end-of-turn tokens and"
                f" {max(0, (ends or [start])[0] - start)} tokens before the first; it must not be"
                " empty or contain the model's special tokens"
            )
        return EncodedExample(ids, tuple(start <= i <= ends[0] for i in range(len(ids))))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids: stop ids are dropped, all other special text is kept."""
        kept = [i for i in ids if i not in self.stop_ids]
        text = str(
            self._tokenizer.decode(
                kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
        return text.rstrip("\n") if self._line_ends else text

    def _line_is_over(self, ids: tuple[int, ...]) -> bool:
        """Whether a line that is not blank has ended; a base model may begin with blank ones."""
        if ids[-1] not in self._line_ends:
            return False
        return "\n" in self._tokenizer.decode(list(ids)).lstrip()

    def describe(self) -> dict[str, Any]:
        """How text becomes ids here, for the manifest."""
        raw = self.encode_raw("Hello")
        facts: dict[str, Any] = {
            "template_sha256": self.template_sha256,
            "template_uses_today": self.template is not None and "strftime_now" in self.template,
            "thinking": self.thinking if self.thinking_switch else None,
            "bos_id": self.bos_id,
            "stop_ids": list(self.stop_ids),
            "end_of_turn_id": self.end_of_turn_id,
            "raw_sample_first_ids": list(raw.ids[:FIRST_IDS]),
        }
        if self.raw is not None:
            facts["raw_template"] = self.raw.to_json()
        if self.template is not None:
            sample = self.encode_prompt([Message("user", "Hello")])
            facts["chat_sample_text"] = sample.text
            facts["chat_sample_first_ids"] = list(sample.ids[:FIRST_IDS])
        return facts

    def without_special_tokens(self, text: str) -> str:
        """``text`` with a space inside each of the model's special tokens, so that none of them is
        one: what was written by somebody else must not open or close a turn."""
        for token in sorted(self._tokenizer.get_added_vocab(), key=len, reverse=True):
            # runs of white space are tokens of their own in some vocabularies, and harmless
            if len(token) > 1 and token.strip(" \t\r\n▁") and token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    # -- rendering and ids ------------------------------------------------------------------

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        if self.template is None:
            raise CapabilityError(
                f"{self.directory.name} has no chat template, so it cannot answer chat prompts;"
                " use raw completion or an instruction-tuned model"
            )
        options = {"enable_thinking": self.thinking} if self.thinking_switch else {}
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in messages],
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **options,
            )
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise UserError(
                f"the chat template of {self._where()} failed: {reason}; fix the template or the"
                " messages"
            ) from error
        if not isinstance(text, str) or not text:
            raise UserError(f"the chat template of {self._where()} rendered no text")
        return text

    def _encode(self, text: str) -> tuple[int, ...]:
        try:
            ids = list(self._tokenizer.encode(text, add_special_tokens=False))
        except Exception as error:
            raise UserError(
                f"the tokenizer of {self.directory.name} cannot encode a text of {len(text)}"
                f" characters ({type(error).__name__}); is it valid Unicode?"
            ) from error
        if self.bos_id is not None and (not ids or ids[0] != self.bos_id):
            ids.insert(0, self.bos_id)
        self._check_bos(ids)
        return tuple(ids)

    def _check_bos(self, ids: Sequence[int]) -> None:
        bos = self._tokenizer.bos_token_id
        doubled = len(ids) > 1 and ids[0] == bos and ids[1] == bos
        if bos is not None and (doubled or (self.bos_id is not None and bos in ids[1:])):
            raise UserError(
                f"more than one BOS token in a text for {self._where()}: first ids"
                f" {list(ids[:FIRST_IDS])}; the template or the text itself writes it twice"
            )

    def _wanted_bos(self) -> int | None:
        """The BOS id if the tokenizer puts it before plain text, else None."""
        bos = self._tokenizer.bos_token_id
        if bos is None:
            return None
        ids = list(self._tokenizer.encode("a", add_special_tokens=True))
        return int(bos) if ids and ids[0] == bos else None

    def _find_end_of_turn(self) -> int:
        """The special token that the template writes after an answer."""
        question, answer = PROBE
        turns = [Message("user", question), Message("assistant", answer)]
        text = self._render(turns, generation_prompt=False)
        after = text.rpartition(answer)[2]
        special = set(self._tokenizer.all_special_ids) | set(self.stop_ids)
        special |= {i for i, t in self._tokenizer.added_tokens_decoder.items() if t.special}
        for i in self._tokenizer.encode(after, add_special_tokens=False):
            if i in special:
                return int(i)
        raise UserError(
            f"the chat template of {self._where()} writes no special token after an answer, so"
            " the model cannot learn to stop; fix the template"
        )

    def _prefix_complaint(self, asked: tuple[int, ...], ids: tuple[int, ...], item: str) -> str:
        same = next((i for i, (a, b) in enumerate(zip(asked, ids, strict=False)) if a != b), 0)
        return (
            f"{_the(item)}the chat template of {self._where()} renders the conversation so that it"
            f" does not start with the generation prompt (they part at token {same} of"
            f" {len(asked)}): an answer that begins with white space, or thinking={self.thinking},"
            " can cause this"
        )

    def _where(self) -> str:
        digest = (self.template_sha256 or "none")[:12]
        return f"{self.directory.name} (template {digest})"


def _the(item: str) -> str:
    return f"item {item}: " if item else ""


def _sha256(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _ends_inside_thinking(text: str) -> bool:
    return any(text.rfind(opening) > text.rfind(closing) for opening, closing in THINK_MARKS)
