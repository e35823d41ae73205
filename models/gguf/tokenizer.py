"""A model directory's tokenizer as the metadata that llama.cpp tokenises by.

Evaluation feeds token ids and needs none of it; a file that a user opens in llama.cpp or Ollama
does. llama.cpp knows a tokenizer by its kind (``tokenizer.ggml.model``) and, for byte-level BPE,
by the name of the rule that splits text into words (``tokenizer.ggml.pre``). Both are read off
``tokenizer.json``; what is not exactly one of the kinds below is refused, since a wrong rule gives
other ids without a word. :func:`backends.llamacpp.tokenizer.differences` compares the result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.chat import ChatEncoder, load_tokenizer
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's enum llama_token_type."""

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS: Mapping[str, str] = {
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _END: (
        "llama-bpe"
    ),
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _END: "qwen2",
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
    + _END: "qwen35",
}
"""Expression of a ``Split`` before byte-level BPE -> llama.cpp's name for it."""
_IGNORE_MERGES = frozenset({"llama-bpe"})
"""Rules for which llama.cpp takes a whole word that is in the vocabulary without merging."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"
"""What stands for a space in Gemma's vocabulary."""


@dataclass(frozen=True)
class GgufTokenizer:
    """Everything that is written under ``tokenizer.``."""

    model: str
    """``gpt2`` (byte-level BPE), ``llama`` (pieces with scores) or ``gemma4`` (BPE of pieces)."""
    pre: str | None
    tokens: tuple[str, ...]
    """One a row of the embedding."""
    types: tuple[int, ...]
    scores: tuple[float, ...] | None
    merges: tuple[str, ...] | None
    """Pairs in order, parts with a space between."""
    ids: Mapping[str, int]
    """Of ``bos``, ``eos``, ``eot``, ``pad`` and ``unk``, those that there are."""
    add_bos: bool
    chat_template: str | None

    def write(self, writer: Any) -> None:
        """Add all of it to a ``gguf.GGUFWriter``."""
        writer.add_tokenizer_model(self.model)
        if self.pre is not None:
            writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.types))
        if self.scores is not None:
            writer.add_token_scores(list(self.scores))
        if self.merges is not None:
            writer.add_token_merges(list(self.merges))
        for role, number in self.ids.items():
            getattr(writer, f"add_{role}_token_id")(number)
        writer.add_add_bos_token(self.add_bos)
        if self.model != "gpt2":
            writer.add_add_space_prefix(False)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_tokenizer(directory: ModelDirectory, vocab: int) -> GgufTokenizer:
    """The tokenizer of ``directory``, whose embedding has ``vocab`` rows.

    Raises CapabilityError for a kind that llama.cpp does not have or that is not known here,
    UserError for a damaged tokenizer.
    """
    path = directory.path / "tokenizer.json"
    if not path.is_file():
        raise CapabilityError(f"{directory.path} has no tokenizer.json")
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        model, pre = kind_of(spec, directory.family)
        tokens, types = _tokens(spec, vocab, path.name)
        pairs = [_pair(merge) for merge in spec["model"]["merges"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error!r}); fetch or save the model again") from None
    tokenizer = load_tokenizer(directory.path)
    template, bos = tokenizer.chat_template, tokenizer.bos_token_id
    plain = list(tokenizer.encode("a", add_special_tokens=True))
    return GgufTokenizer(
        model=model,
        pre=pre,
        tokens=tokens,
        types=types,
        scores=_scores(tokens, pairs) if model == "llama" else None,
        merges=None if model == "llama" else tuple(" ".join(pair) for pair in pairs),
        ids=_special_ids(tokenizer, directory),
        add_bos=bos is not None and plain[:1] == [bos],
        chat_template=template if isinstance(template, str) and template else None,
    )


def kind_of(spec: Mapping[str, Any], family: str) -> tuple[str, str | None]:
    """``tokenizer.ggml.model`` and ``.pre`` of a parsed tokenizer.json.

    Raises CapabilityError where there is no exact counterpart.
    """
    model = spec["model"]
    if model["type"] != "BPE" or model.get("dropout") or model.get("end_of_word_suffix"):
        raise CapabilityError(f"its tokenizer is {model['type']}, which is not known here")
    if model.get("byte_fallback"):
        return _pieces(spec, family), None
    normalizer = spec.get("normalizer")
    if normalizer is not None and normalizer["type"] != "NFC":
        raise CapabilityError(f"its tokenizer normalises text by {normalizer['type']}")
    pre = _rule(spec.get("pre_tokenizer"))
    if pre is None:
        raise CapabilityError("its tokenizer splits text by a rule that is not known here")
    if bool(model.get("ignore_merges")) != (pre in _IGNORE_MERGES):
        raise CapabilityError(f"its tokenizer splits as {pre} and merges otherwise")
    return "gpt2", pre


def _pieces(spec: Mapping[str, Any], family: str) -> str:
    """Gemma's: spaces become a mark, then merges of characters, bytes for what is left."""
    expected = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if spec.get("normalizer") != expected:
        raise CapabilityError("its tokenizer normalises text in a way that is not known here")
    return "gemma4" if family == "gemma4" else "llama"


def _rule(rule: Mapping[str, Any] | None) -> str | None:
    """llama.cpp's name for a pre-tokenizer; None where it has none, or none that is known."""
    parts = rule.get("pretokenizers", [rule]) if rule is not None else []
    if not parts or parts[-1]["type"] != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    *before, level = parts
    words = level.get("use_regex", True)
    if not before:
        return "gpt-2" if words else None
    if len(before) > 1:
        return None
    first = before[0]
    if first["type"] == "Digits":
        return "smollm" if first.get("individual_digits") and words else None
    if first["type"] != "Split" or first.get("invert") or first.get("behavior") != "Isolated":
        return None
    return None if words else SPLITS.get(first["pattern"].get("Regex", ""))


def _tokens(
    spec: Mapping[str, Any], vocab: int, where: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Text and type of every row; rows without a token are named and unused."""
    texts = {number: text for text, number in spec["model"]["vocab"].items()}
    added = {one["id"]: one for one in spec["added_tokens"]}
    texts |= {number: one["content"] for number, one in added.items()}
    if max(texts) >= vocab:
        raise UserError(
            f"{where}: token {max(texts)} has no row in an embedding of {vocab}; the tokenizer "
            "belongs to another model"
        )
    unknown = spec["model"].get("unk_token")
    pieces = bool(spec["model"].get("byte_fallback"))

    def entry(number: int) -> tuple[str, int]:
        text = texts.get(number)
        if text is None:
            return f"[PAD{number}]", UNUSED
        if pieces and text == unknown:
            return text, UNKNOWN
        if pieces and _BYTE.fullmatch(text):
            return text, BYTE
        if number not in added:
            return text, NORMAL
        if added[number]["special"]:
            return text, CONTROL
        return text.replace(_SPACE, " "), USER_DEFINED  # these are looked for in the text itself

    found = [entry(number) for number in range(vocab)]
    return tuple(text for text, _ in found), tuple(kind for _, kind in found)


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    if " " in left + right:
        raise CapabilityError("its tokenizer merges text with plain spaces")
    return left, right


def _scores(tokens: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    """llama.cpp joins the neighbours whose piece has the highest score: the earliest merge's."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, rank)
    return tuple(-float(ranks.get(text, len(pairs))) for text in tokens)


def _special_ids(tokenizer: Any, directory: ModelDirectory) -> dict[str, int]:
    roles = ("bos", "eos", "pad", "unk")
    found = {role: getattr(tokenizer, f"{role}_token_id") for role in roles}
    try:
        end_of_turn = ChatEncoder(directory).end_of_turn_id
    except UserError:
        end_of_turn = None  # its template writes none; llama.cpp goes by eos then
    if end_of_turn != found["eos"]:
        found["eot"] = end_of_turn
    return {role: int(number) for role, number in found.items() if number is not None}
