"""A Hugging Face tokenizer from a GGUF's metadata, without torch.

The conversion is transformers' own (``convert_gguf_tokenizer``), fed from our checked header,
because transformers' reader of the file imports torch. Added here: a pre-tokenizer that is
neither known to transformers nor GPT-2's is refused, where transformers would silently split
text the GPT-2 way, and SmolLM's digit splitting.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.gguf_file import GgufFile

GPT2_LIKE = frozenset({"gpt-2", "phi-2", "smollm"})
"""Values of ``tokenizer.ggml.pre`` that llama.cpp splits by GPT-2's expression (smollm: after
isolating digits)."""

FIELDS = {
    "model": "tokenizer_type",
    "pre": "pre_tokenizer_type",
    "tokens": "tokens",
    "scores": "scores",
    "token_type": "token_type",
    "merges": "merges",
    "add_space_prefix": "add_prefix_space",
}

ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|end|>")
CONTROL = 3


def write_tokenizer(file: GgufFile, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, the chat template and generation_config.json.

    Raises UserError when the file has no tokenizer, a damaged one, or one that cannot be
    rebuilt exactly.
    """
    from transformers import PreTrainedTokenizerFast

    fields = _fields(file)
    special = _special(file, fields["tokens"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=_backend(file, fields),
        clean_up_tokenization_spaces=False,
        add_bos_token=_adds(file, "bos", default=fields["tokenizer_type"] == "llama"),
        add_eos_token=_adds(file, "eos", default=False),
        **special,
    )
    template = file.metadata.get("tokenizer.chat_template")
    fast.chat_template = template if isinstance(template, str) else None
    fast.save_pretrained(out)
    generation = token_ids(file) | {"eos_token_id": stop_ids(file)}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2, sort_keys=True))


def token_ids(file: GgufFile) -> dict[str, int]:
    """``bos_token_id``, ``eos_token_id`` and ``pad_token_id``, those that the file states."""
    size = len(_fields(file)["tokens"])
    ids = {
        f"{role.split('_', maxsplit=1)[0]}_token_id": file.metadata.get(f"tokenizer.ggml.{key}")
        for role, key in ROLES.items()
        if role != "unk_token"
    }
    return {key: i for key, i in ids.items() if isinstance(i, int) and 0 <= i < size}


def stop_ids(file: GgufFile) -> list[int]:
    """The end-of-text id and every control token that ends a turn, ascending."""
    fields = _fields(file)
    ids = {token_ids(file).get("eos_token_id")}
    kinds = fields.get("token_type") or []
    for i, (token, kind) in enumerate(zip(fields["tokens"], kinds, strict=False)):
        if kind == CONTROL and token in TURN_ENDS:
            ids.add(i)
    return sorted(i for i in ids if i is not None)


def _fields(file: GgufFile) -> dict[str, Any]:
    found = {
        name: file.metadata[f"tokenizer.ggml.{key}"]
        for key, name in FIELDS.items()
        if f"tokenizer.ggml.{key}" in file.metadata
    }
    tokens = found.get("tokens")
    if found.get("tokenizer_type") in (None, "none") or not isinstance(tokens, list) or not tokens:
        raise UserError(
            f"{file.path} carries no tokenizer; use a GGUF that does, or the model's Hugging Face"
            " directory"
        )
    return found


def _backend(file: GgufFile, fields: dict[str, Any]) -> Any:
    _check_pre_tokenizer(file, fields)
    try:
        from transformers.integrations.gguf import convert_gguf_tokenizer
    except ImportError as error:
        raise UserError(
            "this transformers cannot convert GGUF tokenizers; pip install 'transformers>=5.24'"
        ) from error
    try:
        backend, _ = convert_gguf_tokenizer(file.architecture, fields)
    except Exception as error:
        raise UserError(
            f"{file.path}: its tokenizer cannot be rebuilt ({_first_line(error)}); the file is"
            " damaged or of an unsupported kind"
        ) from error
    if fields.get("pre_tokenizer_type") == "smollm":
        backend.pre_tokenizer = _digits_then_words()
    _check_size(file, backend, fields["tokens"])
    return backend


def _check_pre_tokenizer(file: GgufFile, fields: dict[str, Any]) -> None:
    if fields["tokenizer_type"] != "gpt2":
        return
    from transformers.integrations.gguf import gguf_tokenizer_mapping

    known = GPT2_LIKE | gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS.keys()
    pre = fields.get("pre_tokenizer_type")
    if pre not in known:
        raise UserError(
            f"{file.path}: pre-tokenizer {pre!r} is not known here, so its token ids could be"
            " wrong; use the model's Hugging Face directory"
        )


def _digits_then_words() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _check_size(file: GgufFile, backend: Any, tokens: list[Any]) -> None:
    """No token may have moved: the embedding rows are addressed by these ids."""
    size = backend.get_vocab_size(with_added_tokens=True)
    rows = file.tensors["token_embd.weight"].shape[0]
    if size > rows or len(tokens) > rows:
        raise UserError(
            f"{file.path}: the tokenizer has {max(size, len(tokens))} entries, the embedding"
            f" {rows} rows; the file is damaged"
        )


def _special(file: GgufFile, tokens: list[Any]) -> dict[str, str]:
    special = {}
    for role, key in ROLES.items():
        i = file.metadata.get(f"tokenizer.ggml.{key}")
        if i is None:
            continue
        if not isinstance(i, int) or not 0 <= i < len(tokens):
            raise UserError(
                f"{file.path}: tokenizer.ggml.{key} is {i!r}, the vocabulary has {len(tokens)}"
                " entries; the file is damaged"
            )
        special[role] = str(tokens[i])
    return special


def _adds(file: GgufFile, what: str, *, default: bool) -> bool:
    return bool(file.metadata.get(f"tokenizer.ggml.add_{what}_token", default))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
