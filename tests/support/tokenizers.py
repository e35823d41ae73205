"""Small trained tokenizers of the kinds that the supported families have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.tiny_models import BOS, CHATML, EOS, PAD

KINDS = ("gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "pieces")


def train(kind: str, texts: Sequence[str], vocab: int) -> Any:
    """A tokenizer of :data:`KINDS`, trained on ``texts``, as a ``tokenizers.Tokenizer``."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    pieces = kind == "pieces"
    names = [PAD, BOS, EOS]
    alphabet = []
    if pieces:
        names += ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    else:
        model = models.BPE(ignore_merges=kind == "llama-bpe")
    tokenizer = Tokenizer(model)
    if pieces:
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    elif kind.startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer, alphabet = _rule(kind)
    if not pieces:
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - 2, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    if pieces:  # as in Gemma's vocabulary, no piece goes on after a line's end
        texts = ["\n", *(line for text in texts for line in text.split("\n"))]
    tokenizer.train_from_iterator([*texts, *texts], trainer)
    if pieces:  # only the control tokens are special; bytes are plain entries
        tokenizer = _without_added_bytes(tokenizer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    return tokenizer


def _rule(kind: str) -> tuple[Any, list[str]]:
    from tokenizers import Regex, pre_tokenizers

    from models.gguf.tokenizer import SPLITS

    if kind == "pieces":
        return pre_tokenizers.Split(" ", "merged_with_previous"), []
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "gpt-2":
        return words, alphabet
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, words]), alphabet
    pattern = next(pattern for pattern, name in SPLITS.items() if name == kind)
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, level]), alphabet


def _without_added_bytes(tokenizer: Any) -> Any:
    import json

    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(spec))


def save(tokenizer: Any, out: Path) -> None:
    """Write it over the tokenizer of a model directory, with a chat template."""
    from transformers import PreTrainedTokenizerFast

    unk = {"unk_token": "<unk>"} if tokenizer.token_to_id("<unk>") is not None else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, **unk,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = CHATML
    fast.save_pretrained(out)
