"""What ``threearc bench eval`` compares llama.cpp with: the bindings' own call, and a bare loop."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from backends.llamacpp.context import IDLE_TOKEN, Context
from backends.llamacpp.model import LlamaCppModel
from backends.llamacpp.native import NativeModel
from models.errors import UserError

Ids = tuple[int, ...]


class CreateCompletion:
    """llama-cpp-python's ``Llama.create_completion``, one prompt after the other.

    Same file, threads, KV type, context and offload as the open ``engine``. ``piece`` gives
    the text of one id, since files made for our engine have no tokenizer.
    """

    def __init__(self, engine: LlamaCppModel, piece: Callable[[int], str]) -> None:
        import llama_cpp

        path, settings = engine._native.path, engine._settings
        kv_type = {"f16": llama_cpp.GGML_TYPE_F16, "f32": llama_cpp.GGML_TYPE_F32}
        self._tokenizer = _tokenizer(piece)
        self._llama = llama_cpp.Llama(
            str(path),
            n_ctx=settings.context,
            n_batch=settings.n_ubatch,
            n_ubatch=settings.n_ubatch,
            n_threads=settings.threads,
            n_threads_batch=settings.threads,
            n_gpu_layers=settings.gpu_layers,
            type_k=kv_type[settings.kv_dtype],
            type_v=kv_type[settings.kv_dtype],
            flash_attn=settings.flash_attention,
            swa_full=True,
            no_perf=True,
            tokenizer=self._tokenizer,
            verbose=False,
        )

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Ids]:
        """Exactly ``max_tokens`` greedy ids a prompt."""
        self._llama.reset()
        found = []
        with _no_end_of_text():
            for prompt in prompts:
                self._llama.create_completion(list(prompt), max_tokens=max_tokens, temperature=0.0)
                found.append(self._tokenizer.latest)
        return found

    def close(self) -> None:
        """Free its model and context."""
        self._llama.close()


def _tokenizer(piece: Callable[[int], str]) -> Any:
    """A tokenizer for :class:`llama_cpp.Llama` that joins pieces and keeps the ids.

    In ASCII: a text whose last id ends inside a character would get more ids than asked for.
    """
    from llama_cpp.llama_tokenizer import BaseLlamaTokenizer

    @cache
    def encoded(token: int) -> bytes:
        return piece(token).encode("ascii", "replace")

    class _Pieces(BaseLlamaTokenizer):  # type: ignore[misc]  # llama_cpp has no types
        latest: Ids = ()

        def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
            raise NotImplementedError("prompts are ids")

        def detokenize(
            self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False
        ) -> bytes:
            self.latest = tuple(tokens)
            return b"".join([encoded(token) for token in tokens])

    return _Pieces()


@contextmanager
def _no_end_of_text() -> Iterator[None]:
    """No token ends a completion, so that each has the same number of ids."""
    from llama_cpp import llama_cpp as low

    kept = low.llama_vocab_is_eog
    low.llama_vocab_is_eog = lambda *_: False
    try:
        yield
    finally:
        low.llama_vocab_is_eog = kept


class RawDecode:
    """``llama_decode`` and numpy's arg-max, nothing else, in a context like the engine's.

    Every prompt is ingested alone, then ``width`` slots take a step together, as in
    :class:`backends.llamacpp.generate.Decoding`.
    """

    def __init__(self, engine: LlamaCppModel) -> None:
        native, settings = engine._native, engine._settings
        self._api, self._vocab, self._width = native.library.api, native.vocab, settings.width
        self._context = Context(
            native,
            settings,
            width=settings.width,
            context=settings.context,
            outputs=settings.width,
        )
        self._batch = self._api.llama_batch_init(max(settings.context, settings.width), 0, 1)
        self.decodes = self.tokens = 0
        """``llama_decode`` calls of the last :meth:`generate`, and the tokens they read."""

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Ids]:
        """Exactly ``max_tokens`` greedy ids a prompt, ``width`` prompts at a time."""
        self.decodes = self.tokens = 0
        found: list[Ids] = []
        for start in range(0, len(prompts), self._width):
            found += self._together(prompts[start : start + self._width], max_tokens)
        return found

    def close(self) -> None:
        """Free the batch and the context; the model stays."""
        self._api.llama_batch_free(self._batch)
        self._context.close()

    def _together(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Ids]:
        api, batch, memory = self._api, self._batch, self._context._memory
        texts: list[list[int]] = []
        for slot, prompt in enumerate(prompts):
            api.llama_memory_seq_rm(memory, slot, -1, -1)
            for at, token in enumerate(prompt):
                self._set(at, token, at, slot, output=at == len(prompt) - 1)
            batch.n_tokens = len(prompt)
            texts.append([int(self._decode(1)[0])])
        idle = range(len(prompts), self._width)
        for step in range(max_tokens - 1):
            for slot, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
                self._set(slot, text[-1], len(prompt) + step, slot, output=True)
            for slot in idle:
                api.llama_memory_seq_rm(memory, slot, -1, -1)
                self._set(slot, IDLE_TOKEN, 0, slot, output=True)
            batch.n_tokens = self._width
            chosen = self._decode(self._width)
            for text, token in zip(texts, chosen.tolist(), strict=False):  # idle slots are last
                text.append(token)
        return [tuple(text) for text in texts]

    def _set(self, at: int, token: int, position: int, slot: int, *, output: bool) -> None:
        batch = self._batch
        batch.token[at], batch.pos[at] = token, position
        batch.n_seq_id[at], batch.seq_id[at][0], batch.logits[at] = 1, slot, output

    def _decode(self, rows: int) -> Any:
        code = self._api.llama_decode(self._context._handle, self._batch)
        if code:
            raise UserError(f"llama.cpp could not evaluate a batch (code {code}); free memory")
        self.decodes += 1
        self.tokens += self._batch.n_tokens
        address = ctypes.addressof(self._api.llama_get_logits(self._context._handle).contents)
        flat = (ctypes.c_float * (rows * self._vocab)).from_address(address)
        return np.ctypeslib.as_array(flat).reshape(rows, self._vocab).argmax(axis=1)


def open_unified(engine: LlamaCppModel) -> LlamaCppModel:
    """Open the file of ``engine`` again, with one KV cache for all sequences: not repeatable."""
    settings = replace(engine._settings, kv_unified=True)
    native = NativeModel(engine._native.path, adapter=None, gpu_layers=settings.gpu_layers)
    try:
        return LlamaCppModel(native, settings)
    except BaseException:
        native.close()
        raise
