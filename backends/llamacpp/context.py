"""llama.cpp contexts: the fixed-width one that decodes, and a short-lived one for logits.

What makes decoding repeatable (BACKENDS section 8): one KV stream a sequence, every decode
batch exactly ``width`` tokens wide, every prompt alone in its own batch, split only at
``n_ubatch`` and behind a shared prefix. Flash attention is off, so that no kernel may split
the KV cache by the length of a neighbour.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backends.interface import Float32
from backends.llamacpp.native import NativeModel
from models.errors import UserError

KvDtype = Literal["f16", "f32"]
IDLE_TOKEN = 0
"""Fed to slots without a sequence, so that the batch keeps its width."""


@dataclass(frozen=True)
class Settings:
    """Everything about a decode that can change its numbers."""

    context: int
    """Tokens per sequence, prompt and completion together."""
    width: int = 8
    kv_dtype: KvDtype = "f16"
    threads: int = 1
    gpu_layers: int = -1
    n_ubatch: int = 512
    """Prompts longer than this are ingested in pieces of it."""
    flash_attention: bool = False
    kv_unified: bool = False
    """One KV cache for all sequences instead of a stream each, and no token for idle slots: texts
    then depend on neighbours."""
    prefix: tuple[int, ...] = ()
    """Ids that are computed once and copied to the stream of every prompt that begins with them.
    Splitting a prompt there changes its numbers, so it is part of what makes a text."""

    def __post_init__(self) -> None:
        if self.prefix and self.kv_unified:
            raise UserError("a shared prefix needs a KV stream a sequence: leave kv_unified out")

    @property
    def streams(self) -> int:
        """Sequences that llama.cpp keeps: the slots, and the prefix where there is one."""
        return self.width + bool(self.prefix)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest; ``shared_prefix`` only where there is one, as in earlier runs."""
        made = asdict(self)
        del made["prefix"]
        return made | ({"shared_prefix": describe_prefix(self.prefix)} if self.prefix else {})


def describe_prefix(ids: Sequence[int]) -> dict[str, Any]:
    """Length and sha256 (of the ids in decimal, commas between) of a shared prefix."""
    text = ",".join(map(str, ids))
    return {"length": len(ids), "sha256": hashlib.sha256(text.encode()).hexdigest()}


class Batch:
    """A llama_batch over numpy arrays; all its tokens belong to the sequences in ``slots``."""

    def __init__(self, api: Any, size: int) -> None:
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.outputs = np.zeros(size, np.int8)
        self.slots = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        # llama.cpp wants, for each token, a pointer to its list of sequences (here of one).
        self._lists = self.slots.ctypes.data + self.slots.itemsize * np.arange(size, dtype=np.uintp)
        types = {name: kind for name, kind, *_ in api.llama_batch._fields_}
        self.native = api.llama_batch()
        for name, array in (
            ("token", self.tokens),
            ("pos", self.positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._lists),
            ("logits", self.outputs),
        ):
            setattr(self.native, name, ctypes.cast(array.ctypes.data, types[name]))

    def fill(self, ids: Sequence[int], slot: int, start: int = 0) -> None:
        """Set the batch to one sequence from position ``start``, output at its last token."""
        n = len(ids)
        self.tokens[:n] = ids
        self.positions[:n] = np.arange(start, start + n)
        self.slots[:n] = slot
        self.outputs[:n] = 0
        self.outputs[n - 1] = 1
        self.native.n_tokens = n


class Context:
    """A llama_context and its batch. :meth:`close` frees it."""

    def __init__(
        self, model: NativeModel, settings: Settings, *, width: int, context: int, outputs: int
    ) -> None:
        self.model = model
        self._api = model.library.api
        self._handle: Any = self._create(settings, width, context, outputs)
        self._memory = self._api.llama_get_memory(self._handle)
        self._seen: tuple[int, int, Float32] | None = None
        if model.adapter is not None:
            self._attach_adapter()

    @property
    def context_per_sequence(self) -> int:
        """Tokens llama.cpp really keeps for each sequence."""
        return int(self._api.llama_n_ctx_seq(self._handle))

    def run(self, batch: Batch) -> None:
        """Evaluate a batch. Raises UserError with llama.cpp's reason when it fails."""
        code = self._api.llama_decode(self._handle, batch.native)
        if code:
            reason = self.model.library.log.errors()
            raise UserError(
                f"llama.cpp could not evaluate a batch (code {code}; "
                f"{reason or 'no reason given'}); finished items are kept: free memory and "
                "continue the run"
            )

    def outputs(self, rows: int) -> Float32:
        """Logits of the last batch's output tokens, [rows, vocab]: a view, valid until the next."""
        pointer = self._api.llama_get_logits(self._handle)
        address = ctypes.addressof(pointer.contents)
        if self._seen is None or self._seen[:2] != (address, rows):
            count = rows * self.model.vocab
            flat = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
            self._seen = (address, rows, flat.reshape(rows, self.model.vocab))
        return self._seen[2]

    def forget(self, slot: int) -> None:
        """Empty one sequence's KV stream."""
        self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def copy(self, source: int, slot: int) -> None:
        """Copy one sequence's whole stream to another's, which must be empty.

        Whole streams only: llama.cpp aborts the process on a part of one (BACKENDS section 8).
        """
        self._api.llama_memory_seq_cp(self._memory, source, slot, -1, -1)

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            self._api.llama_free(self._handle)
        self._handle = self._seen = None

    def _create(self, settings: Settings, width: int, context: int, outputs: int) -> Any:
        api, log = self._api, self.model.library.log
        kv_type = {"f16": api.GGML_TYPE_F16, "f32": api.GGML_TYPE_F32}[settings.kv_dtype]
        p = api.llama_context_default_params()
        p.n_ctx = context * width
        p.n_batch = max(context, width)
        p.n_ubatch = min(settings.n_ubatch, p.n_batch)
        p.n_seq_max = width
        p.n_outputs_max = outputs
        p.n_threads = p.n_threads_batch = settings.threads
        p.flash_attn_type = int(settings.flash_attention)
        p.type_k = p.type_v = kv_type
        p.kv_unified = settings.kv_unified
        p.swa_full = True
        p.no_perf = True
        log.clear()
        handle = api.llama_init_from_model(self.model.handle, p)
        if not handle:
            raise UserError(
                f"llama.cpp cannot make {width} x {context} tokens of context for "
                f"{self.model.path} ({log.errors()}); lower the context, the width or gpu_layers"
            )
        return handle

    def _attach_adapter(self) -> None:
        adapters = (self._api.llama_adapter_lora_p_ctypes * 1)(self.model.adapter)
        scales = (ctypes.c_float * 1)(1.0)
        code = self._api.llama_set_adapters_lora(self._handle, adapters, 1, scales)
        if code:
            self.close()
            raise UserError(f"llama.cpp cannot apply {self.model.adapter_path} (code {code})")


class DecodeContext(Context):
    """``width`` sequences decoded in step, each in its own KV stream."""

    def __init__(self, model: NativeModel, settings: Settings) -> None:
        streams = settings.streams
        super().__init__(model, settings, width=streams, context=settings.context, outputs=streams)
        self.width = settings.width
        if self.context_per_sequence < settings.context:
            self.close()
            raise UserError(
                f"llama.cpp gave {self.context_per_sequence} tokens per sequence instead of "
                f"{settings.context}; lower the context"
            )
        self._prompt = Batch(self._api, settings.context)
        self._step = Batch(self._api, self.width)
        self._step.outputs[:] = 1
        self._pads = not settings.kv_unified
        self._prefix = settings.prefix
        # by slot; the batch's own rows are the busy slots where idle ones are left out
        self._next = np.full(self.width, IDLE_TOKEN, np.int32)
        self._at = np.zeros(self.width, np.int32)
        self._busy = np.zeros(self.width, np.bool_)
        if self._prefix:
            self._compute_prefix()

    def ingest(self, slot: int, ids: Sequence[int]) -> Float32:
        """Start ``slot`` with a prompt, alone in its batch; the next token's logits [1, vocab].

        What the prompt has of the shared prefix is copied, if that is not all of it. A view,
        valid until the next batch, as that of :meth:`step`.
        """
        self.forget(slot)
        start = len(self._prefix)
        if start and len(ids) > start and tuple(ids[:start]) == self._prefix:
            self.copy(self.width, slot)
        else:
            start = 0
        self._prompt.fill(ids[start:], slot, start)
        self.run(self._prompt)
        self._busy[slot] = True
        self._at[slot] = len(ids)
        return self.outputs(1)

    def feed(self, slot: int, token: int) -> None:
        """Give a busy ``slot`` the token that the next step is to read."""
        self._next[slot] = token

    def release(self, slot: int) -> None:
        """Make ``slot`` idle; its stream is emptied at the next step."""
        self._busy[slot] = False
        self._next[slot] = IDLE_TOKEN
        self._at[slot] = 0

    def busy(self) -> list[int]:
        """Slots with a sequence, in order: the rows of :meth:`step`."""
        return [int(slot) for slot in np.flatnonzero(self._busy)]

    def step(self) -> Float32:
        """Read one token in every busy slot; their logits [busy, vocab], in order of slots."""
        busy = np.flatnonzero(self._busy)
        for slot in np.flatnonzero(~self._busy):
            self.forget(int(slot))
        slots = np.arange(self.width) if self._pads else busy
        rows = len(slots)
        self._step.slots[:rows] = slots
        self._step.tokens[:rows] = self._next[slots]
        self._step.positions[:rows] = self._at[slots]
        self._step.native.n_tokens = rows
        self.run(self._step)
        self._at[busy] += 1
        logits = self.outputs(rows)
        return logits if rows == len(busy) else logits[busy]

    def _compute_prefix(self) -> None:
        """Fill the stream behind the slots', and see that a copy of it arrives whole."""
        self._prompt.fill(self._prefix, self.width)
        self.run(self._prompt)
        self.copy(self.width, 0)
        last = int(self._api.llama_memory_seq_pos_max(self._memory, 0))
        self.forget(0)
        if last != len(self._prefix) - 1:
            self.close()
            raise UserError(
                f"llama.cpp cannot copy a sequence of {self.model.path}: start a new run with "
                "--no-share-prefix"
            )


def arg_max(logits: Float32) -> NDArray[np.intp]:
    """Index of each row's largest value, the lowest on a tie; [rows, vocab] -> [rows].

    Raises UserError on a NaN, which numpy reports as the largest.
    """
    ids: NDArray[np.intp] = logits.argmax(axis=1)
    if not np.isfinite(logits[np.arange(len(ids)), ids]).all():
        raise UserError(
            "llama.cpp returned logits that are not finite numbers: the model file or the adapter "
            "is damaged, or its training diverged"
        )
    return ids


def sequence_logits(model: NativeModel, settings: Settings, ids: Sequence[int]) -> Float32:
    """Logits [T, vocab] of one sequence, in a context of its own that is freed at once."""
    context = Context(model, settings, width=1, context=len(ids), outputs=len(ids))
    try:
        batch = Batch(model.library.api, len(ids))
        batch.fill(ids, 0)
        batch.outputs[:] = 1
        context.run(batch)
        return context.outputs(len(ids)).copy()
    finally:
        context.close()
