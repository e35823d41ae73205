"""Whether llama.cpp tokenises by a GGUF as Hugging Face's tokenizer does by its directory."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.llamacpp.library import library
from models.chat import load_tokenizer
from models.directory import ModelDirectory
from models.errors import UserError
from models.gguf.inspect import check_gguf

SAMPLES: tuple[str, ...] = (
    "Hello, world!",
    "The cook didn't say we'll rest it; I'd've waited, they're sure.",
    "DON'T SHOUT: IT'S LATE",
    " leading space",
    "trailing space ",
    "two  three   four    spaces",
    "\ttab\t\ttabs",
    "line\nline\n\nline\n\n\n\nline\r\nline",
    "   \n  \n mixed \t\n",
    "",
    " ",
    "\n",
    "0 1 12 123 1234 12345 3.14159 1,000,000 -7 1e-9",
    "2026-11-28T02:42:30Z v1.2.3-rc1",
    "def add(a: int, b: int) -> int:\n    return a + b\n",
    "for i in range(10):\n\tif i % 2 == 0:\n\t\tprint(f'{i:>3}')\n",
    "x=y!=z&&(a||b)<<2>>=3;//comment/*block*/",
    "snake_case camelCase PascalCase SCREAMING_SNAKE kebab-case",
    "https://example.org/a/b?c=d&e=f#g user@example.org",
    '{"key": [1, 2.5, null, true], "text": "a\\"b"}',
    "Ünïcödé naïve façade Ærøskøbing Straße İstanbul",
    "Привет, мир! Как дела?",
    "你好，世界。今天天气怎么样？",
    "こんにちは世界、カタカナ漢字",
    "안녕하세요 세계",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया १२३",
    "สวัสดีชาวโลก",
    "emoji 😀👍🏽👩‍👩‍👧 🇩🇪 ❤️",
    "math ∑∫√∞ ≤≥≠ αβγ → ½ ²",
    "zero\u200bwidth no\u00a0break \u3000wide \ufeffbom",
    "“quotes” ‘single’ – — … «guillemets»",
    "e\u0301 combining, A\u030a ring, \u0e01\u0e33",
    "\u0001\u0002 control \x7f",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<not a special> <|nor this|> [INST]",
)
"""Varied text: spaces, numbers, code, scripts, marks, control characters."""


@dataclass(frozen=True)
class Difference:
    """One text that the two tokenise or decode differently."""

    text: str
    expected: tuple[int, ...]
    found: tuple[int, ...]


def differences(gguf: Path, directory: ModelDirectory) -> list[Difference]:
    """Texts of :data:`SAMPLES`, special tokens among them, whose ids differ; empty if none do.

    llama.cpp normalises nothing: where the directory's tokenizer does (NFC, Qwen's), texts that
    this changes are compared in their normalised form. Ids are also decoded back to bytes and
    compared with what they came from. Raises UserError where llama.cpp cannot read the file.
    """
    tokenizer = load_tokenizer(directory.path)
    composed = "NFC" in str(tokenizer.backend_tokenizer.normalizer)
    special = [str(token) for token in tokenizer.all_special_tokens]
    texts = [*SAMPLES, *(f"a {token}b\n{token}{token} c" for token in special)]
    found = []
    with vocabulary(gguf) as (encode, decode):
        for given in texts:
            text = unicodedata.normalize("NFC", given) if composed else given
            expected = tuple(tokenizer.encode(text, add_special_tokens=False))
            ids = encode(text)
            if ids != expected or decode(ids) != text.encode():
                found.append(Difference(text, expected, ids))
    return found


Encode = Callable[[str], tuple[int, ...]]
Decode = Callable[[Sequence[int]], bytes]


@contextmanager
def vocabulary(gguf: Path) -> Iterator[tuple[Encode, Decode]]:
    """Encoding (no BOS added, special tokens read as such) and decoding by llama.cpp.

    Loads the vocabulary alone. Raises UserError where there is none or it is damaged.
    """
    check_gguf(gguf)
    native = library()
    parameters = native.api.llama_model_default_params()
    parameters.vocab_only = True
    native.log.clear()
    model = native.api.llama_model_load_from_file(str(gguf).encode(), parameters)
    if not model:
        raise UserError(f"llama.cpp cannot read the vocabulary of {gguf}: {native.log.errors()}")
    try:
        vocab = native.api.llama_model_get_vocab(model)
        yield (
            lambda text: _encode(native.api, vocab, text),
            lambda ids: _decode(native.api, vocab, ids),
        )
    finally:
        native.api.llama_model_free(model)


def _encode(api: Any, vocab: Any, text: str) -> tuple[int, ...]:
    raw = text.encode()
    room = len(raw) + 8
    ids = (ctypes.c_int32 * room)()
    count = api.llama_tokenize(vocab, raw, len(raw), ids, room, False, True)
    if count < 0:
        raise UserError(f"llama.cpp cannot tokenise {text[:40]!r}")
    return tuple(ids[:count])


def _decode(api: Any, vocab: Any, ids: Sequence[int]) -> bytes:
    given = (ctypes.c_int32 * max(len(ids), 1))(*ids)
    buffer = ctypes.create_string_buffer(256 * max(len(ids), 1))
    count = api.llama_detokenize(vocab, given, len(ids), buffer, len(buffer), False, True)
    if count < 0:
        raise UserError("llama.cpp cannot turn its own tokens back into text")
    return buffer.raw[:count]
