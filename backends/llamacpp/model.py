"""A GGUF file as a :class:`backends.interface.LanguageModel`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from backends.decoding import Ending, check_prompts
from backends.interface import (
    GREEDY,
    Capabilities,
    Completion,
    Float32,
    Float64,
    Head,
    HiddenPoint,
    LanguageModel,
    OnDone,
    Prompt,
    Sampling,
    StopWhen,
    TokenStatistics,
)
from backends.llamacpp.choices import choice_logprobs
from backends.llamacpp.context import DecodeContext, KvDtype, Settings, sequence_logits
from backends.llamacpp.generate import Decoding
from backends.llamacpp.hidden import final_states, response_logprobs, token_statistics
from backends.llamacpp.library import library
from backends.llamacpp.memory import require_memory
from backends.llamacpp.native import NativeModel
from backends.llamacpp.threads import default_threads
from backends.sequences import check_sequences
from models.errors import CapabilityError, UserError
from models.fingerprint import file_sha256
from models.gguf.inspect import check_gguf
from models.gguf.temper import gguf_heads
from models.gguf_file import read_gguf


def open_gguf(
    path: Path,
    *,
    adapter: Path | None = None,
    context: int,
    width: int = 8,
    kv_dtype: KvDtype = "f16",
    threads: int | None = None,
    gpu_layers: int = -1,
    kv_unified: bool = False,
    prefix: Sequence[int] = (),
    logprobs: bool = False,
) -> LlamaCppModel:
    """Open a GGUF file, optionally with a LoRA GGUF (:func:`.adapter.convert_adapter`).

    ``context`` is tokens per sequence (prompt and completion), ``width`` sequences decoded
    together: both, like everything here, belong to a run's identity, because they decide
    the numbers. ``gpu_layers`` -1 offloads all layers where the build has a GPU.
    ``kv_unified`` and ``prefix``: as in :class:`.context.Settings`. ``logprobs``: completions
    carry them, which changes no number. Raises UserError when a file will not load, or memory
    does not suffice.
    """
    if context < 2 or width < 1:
        raise UserError(f"context {context}, width {width}: give at least 2 and 1")
    settings = Settings(
        context=context,
        width=width,
        kv_dtype=kv_dtype,
        threads=threads or default_threads(),
        gpu_layers=gpu_layers,
        kv_unified=kv_unified,
        prefix=tuple(prefix),
    )
    check_gguf(path)
    # What a GPU has room for is for llama.cpp to find out; it refuses by itself.
    gpu = gpu_layers != 0 and library().supports_gpu
    if not gpu:
        require_memory(path, settings, adapter)
    native = NativeModel(path, adapter=adapter, gpu_layers=gpu_layers)
    try:
        _require_trained_context(native, settings)
        if gpu and not native.offload.layers:  # a build for a GPU, and none to be found
            require_memory(path, settings, adapter)
        return LlamaCppModel(native, settings, logprobs=logprobs)
    except BaseException:
        native.close()
        raise


class LlamaCppModel(LanguageModel):
    """Repeatable decoding: a completion depends on its prompt, seed and the settings alone.

    Unless the settings ask for a unified KV cache.
    """

    def __init__(self, native: NativeModel, settings: Settings, *, logprobs: bool = False) -> None:
        self._native = native
        self._settings = settings
        self._logprobs = logprobs
        self._sha256 = file_sha256(native.path)
        adapter = native.adapter_path
        self._adapter_sha256 = None if adapter is None else file_sha256(adapter)
        self.capabilities = Capabilities(
            engine="llamacpp",
            device=", ".join(native.offload.devices) if native.offload.layers else "cpu",
            dtypes=(native.file_type,),
            final_hidden=True,
        )
        self._context = DecodeContext(native, settings)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop_ids: Sequence[int],
        stop_when: StopWhen | None = None,
        on_done: OnDone | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[Completion]:
        """Decode; bit-identical for any order and number of prompts, one KV stream a sequence.

        See :meth:`backends.interface.LanguageModel.generate`. Raises UserError for an empty
        prompt, a repeated sample of an item, an id outside the vocabulary, or too long a prompt.
        """
        check_prompts(
            prompts,
            max_tokens=max_tokens,
            context=self._settings.context,
            vocab=self._native.vocab,
            replays=True,
        )
        ending = Ending(max_tokens, frozenset(stop_ids), stop_when)
        decoding = Decoding(
            self._context, prompts, ending, sampling, on_done, logprobs=self._logprobs
        )
        return decoding.run()

    def choice_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        options: Sequence[int],
        *,
        prefix: Sequence[int] = (),
    ) -> Iterator[Float64]:
        """Log-probabilities of ``options`` after each prompt; see :mod:`.choices`.

        Raises UserError for a prompt that is empty or longer than the context, or an id outside
        the vocabulary.
        """
        check_sequences(
            [*prompts, options], vocab=self._native.vocab, context=self._settings.context
        )
        return choice_logprobs(self._native, self._settings, prompts, options, prefix=prefix)

    def logits(self, ids: Sequence[int]) -> Float32:
        """Float32 logits [T, vocab] of one sequence, in a context of its own."""
        if not ids or len(ids) > self._settings.context:
            raise UserError(
                f"logits of {len(ids)} ids: give 1 to {self._settings.context}, the context"
            )
        return sequence_logits(self._native, self._settings, ids)

    def describe(self) -> dict[str, Any]:
        """Everything that makes the numbers, for the manifest."""
        native = self._native
        return {
            **super().describe(),
            "gguf_sha256": self._sha256,
            "file_type": native.file_type,
            "adapter_sha256": self._adapter_sha256,
            **self._settings.as_dict(),
            "context_per_sequence": self._context.context_per_sequence,
            "n_ctx_train": native.n_ctx_train,
            "swa_full": True,
            "offloaded_layers": native.offload.layers,
            "layers": native.offload.of,
            "devices": list(native.offload.devices) or ["cpu"],
            "supports_gpu_offload": native.library.supports_gpu,
            "llama_cpp_python": native.library.version,
            "system_info": native.library.system_info,
        }

    def close(self) -> None:
        """Free the context, the adapter and the model."""
        self._context.close()
        self._native.close()

    def hidden_states(
        self,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[int],
        points: Sequence[HiddenPoint],
    ) -> Float32:
        """h_last [n, len(points), d]; any other point raises CapabilityError.

        See :meth:`backends.interface.LanguageModel.hidden_states`. Each sequence is read alone.
        """
        return final_states(self._native, self._settings, sequences, positions, points)

    def logprobs(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[Float32]:
        """See :meth:`backends.interface.LanguageModel.logprobs`. Each sequence is read alone."""
        return response_logprobs(self._native, self._settings, sequences, response_starts)

    def token_statistics(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[TokenStatistics]:
        """See :meth:`backends.interface.LanguageModel.token_statistics`."""
        return token_statistics(self._native, self._settings, sequences, response_starts)

    def attention_heads(self) -> dict[int, tuple[int, int]]:
        """Layer index -> (heads, head_dim); raises CapabilityError for other than llama."""
        return gguf_heads(read_gguf(self._native.path))

    def tempered(self, scales: Mapping[Head, float]) -> AbstractContextManager[None]:
        """Raise CapabilityError: llama.cpp has no way in between attention and o_proj."""
        raise CapabilityError(
            "the llamacpp engine cannot scale heads of an opened model: write a tempered copy with "
            "models.gguf.temper.temper_gguf (and its adapter with backends.llamacpp.adapter."
            "convert_adapter(..., scales=...)) and open that"
        )


def _require_trained_context(native: NativeModel, settings: Settings) -> None:
    if settings.context > native.n_ctx_train:
        raise UserError(
            f"a context of {settings.context} tokens is more than the {native.n_ctx_train} that "
            f"{native.path} was trained on; lower the context (n_predict)"
        )
