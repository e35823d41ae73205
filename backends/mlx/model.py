"""A prepared model opened on MLX (mlx-lm)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map_with_path
from numpy.typing import NDArray

from backends.decoding import Ending, check_prompts
from backends.heads import layer_factors
from backends.interface import (
    GREEDY,
    AdamWConfig,
    Batch,
    Capabilities,
    Completion,
    Decoded,
    Dtype,
    Float32,
    Float64,
    Head,
    HeadOutputs,
    HiddenPoint,
    LanguageModel,
    LoraConfig,
    LossTerms,
    OnDone,
    PreferenceBatch,
    Prompt,
    Sampling,
    StopWhen,
    TokenStatistics,
)
from backends.mlx import cpu, heads, hidden, lora, trace, train
from backends.mlx import quantise as packing
from backends.mlx.decoder import Decoder, restore_embedding_scale
from backends.mlx.device import (
    default_dtype,
    describe_device,
    device_name,
    free_memory,
    keep_resident,
    on_cpu,
)
from backends.mlx.generate import DECODE_WIDTH, decode
from backends.mlx.library import load_model
from backends.mlx.memory import memory_model
from backends.mlx.room import Room
from backends.out_of_memory import memory_errors
from backends.sequences import check_sequences
from models.config_fixes import mlx_overrides
from models.directory import ModelDirectory
from models.errors import UserError

__all__ = ["MlxModel", "default_dtype", "free_memory", "memory_model", "open_model"]

_TRAINING_ADVICE = (
    "lower micro_batch_size (and raise accumulation), lower max_length, or turn on "
    "gradient_checkpointing"
)
_LORA_ADVICE = "lower the rank, adapt fewer modules, or use a smaller model"
_PAIRS_ADVICE = (
    "lower dpo_micro_batch_size (and raise dpo_accumulation), lower dpo_max_length, or turn on "
    "gradient_checkpointing"
)
_READING_ADVICE = "give shorter sequences, or open the model with dtype bfloat16"
_DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def open_model(
    directory: ModelDirectory, *, dtype: Dtype = "float32", quantise: int | None = None
) -> MlxModel:
    """Load a prepared directory on MLX's default device.

    ``quantise``: pack the decoder's linear layers to 4 or 8 bits while loading.

    Raises UserError when the dtype is unknown or the directory cannot be loaded.
    """
    if dtype not in _DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(_DTYPES)}")
    config = json.loads((directory.path / "config.json").read_text())
    try:
        network, _ = load_model(directory.path, lazy=True, model_config=mlx_overrides(config))
        _cast(network, _DTYPES[dtype])
        decoder = Decoder.of(network)
        if quantise is not None:
            packing.quantise(decoder, quantise)
        mx.eval(network.parameters())
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"mlx-lm cannot load {directory.path}: {first}") from error
    network.eval()
    cpu.use_fast_activations(network)
    cpu.keep_freed_memory()
    keep_resident()
    if directory.family == "gemma3":
        restore_embedding_scale(decoder, _DTYPES[dtype])
    return MlxModel(directory, decoder, dtype=dtype, config=config)


class MlxModel(LanguageModel):
    """A language model on MLX. Made by :func:`open_model`."""

    def __init__(
        self,
        directory: ModelDirectory,
        decoder: Decoder,
        *,
        dtype: Dtype,
        config: Mapping[str, Any],
    ) -> None:
        self.capabilities = Capabilities(
            engine="mlx",
            device=device_name(),
            dtypes=tuple(_DTYPES),
            train=True,
            hidden_states=True,
            final_hidden=True,
            heads=True,
        )
        self._directory, self._dtype = directory, dtype
        text = config.get("text_config", config)
        self._context = int(text["max_position_embeddings"])
        self._vocab = int(text["vocab_size"])
        self._open: Decoder | None = decoder
        self._adapter: lora.Adapter | None = None
        self._trainer: train.Trainer | None = None
        self._tempering = heads.Tempering()
        self._room: Room | None = None
        self._checkpointing = False

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
        """See :meth:`LanguageModel.generate`; up to ``DECODE_WIDTH`` prompts run together."""
        check_prompts(prompts, max_tokens=max_tokens, context=self._context, vocab=self._vocab)
        stopping = Ending(max_tokens, frozenset(stop_ids), stop_when)
        self._decoder.network.eval()
        with memory_errors("mlx", "generating", "ask for fewer tokens or use a smaller model"):
            return decode(self._decoder, prompts, stopping, on_done, sampling=sampling)

    def generate_with_states(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop_ids: Sequence[int]
    ) -> list[Decoded]:
        """See :meth:`LanguageModel.generate_with_states`."""
        check_prompts(prompts, max_tokens=max_tokens, context=self._context, vocab=self._vocab)
        stopping = Ending(max_tokens, frozenset(stop_ids), None)
        states: dict[int, Float32] = {}
        self._decoder.network.eval()
        with memory_errors("mlx", "generating", "ask for fewer tokens or use a smaller model"):
            done = decode(self._decoder, prompts, stopping, states=states)
        return [Decoded(one, states.get(place)) for place, one in enumerate(done)]

    def describe(self) -> dict[str, Any]:
        """Device, BLAS, dtype, versions, decode width, trainable share, model fingerprint."""
        described = {
            "engine": "mlx",
            "dtype": self._dtype,
            "model_fingerprint": self._directory.fingerprint,
            "decode_width": DECODE_WIDTH,
            # measured on the CPU (BACKENDS.md section 7); Metal and CUDA were never tried
            "bit_reproducible": on_cpu(),
            **describe_device(),
            **packing.describe(self._decoder),
        }
        if self._adapter is not None:
            described["trainable_share"] = self._adapter.trainable_share(self._decoder)
        return described

    def linear_modules(self) -> dict[str, tuple[int, int]]:
        """See :meth:`LanguageModel.linear_modules`."""
        return lora.linear_modules(self._decoder)

    def attach_lora(
        self,
        config: LoraConfig,
        weights: Mapping[str, Float32],
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        """See :meth:`LanguageModel.attach_lora`."""
        if self._adapter is not None:
            raise UserError("this model has a LoRA already: open the model anew for another")
        with (
            memory_errors("mlx", "attaching the LoRA", _LORA_ADVICE),
            self._tempering.lifted(self._decoder),
        ):
            self._adapter = lora.attach(self._decoder, config, weights)
        if gradient_checkpointing:
            train.checkpoint_layers(self._decoder)
        self._checkpointing = gradient_checkpointing
        self._room = Room(self._directory, self._dtype, config) if on_cpu() else None

    def lora_weights(self) -> dict[str, Float32]:
        """See :meth:`LanguageModel.lora_weights`."""
        return self._attached().weights()

    def configure_optimizer(self, config: AdamWConfig) -> None:
        """See :meth:`LanguageModel.configure_optimizer`."""
        self._trainer = train.Trainer(self._decoder, self._attached(), config)

    def accumulate(self, batch: Batch) -> LossTerms:
        """See :meth:`LanguageModel.accumulate`."""
        trainer = self._training()
        if self._room is not None:
            self._room.require(batch, checkpointing=self._checkpointing, advice=_TRAINING_ADVICE)
        with memory_errors("mlx", "training", _TRAINING_ADVICE):
            return trainer.accumulate(batch)

    def accumulate_preferences(self, batch: PreferenceBatch) -> Float64:
        """See :meth:`LanguageModel.accumulate_preferences`."""
        trainer = self._training()
        if self._room is not None:
            self._room.require(batch.rows, checkpointing=self._checkpointing, advice=_PAIRS_ADVICE)
        with memory_errors("mlx", "training", _PAIRS_ADVICE):
            return trainer.accumulate_preferences(batch)

    def apply(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """See :meth:`LanguageModel.apply`."""
        with memory_errors("mlx", "updating the LoRA", _TRAINING_ADVICE):
            return self._training().apply(learning_rate, max_grad_norm)

    def evaluate_loss(self, batch: Batch) -> LossTerms:
        """See :meth:`LanguageModel.evaluate_loss`."""
        with memory_errors("mlx", "computing a loss", _TRAINING_ADVICE):
            return train.evaluate_loss(self._decoder, batch)

    def sequence_logprobs(self, batch: Batch) -> Float64:
        """See :meth:`LanguageModel.sequence_logprobs`."""
        with memory_errors("mlx", "computing log-probabilities", _PAIRS_ADVICE):
            return train.sequence_logprobs(self._decoder, batch)

    def training_state(self) -> dict[str, NDArray[Any]]:
        """See :meth:`LanguageModel.training_state`."""
        return self._training().state()

    def load_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See :meth:`LanguageModel.load_training_state`."""
        self._training().load_state(state)

    def attention_heads(self) -> dict[int, tuple[int, int]]:
        """See :meth:`LanguageModel.attention_heads`."""
        return heads.attention_heads(self._decoder)

    def hidden_states(
        self,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[int],
        points: Sequence[HiddenPoint],
    ) -> Float32:
        """See :meth:`LanguageModel.hidden_states`."""
        decoder = self._reading(sequences, positions=positions)
        with memory_errors("mlx", "reading hidden states", _READING_ADVICE):
            return hidden.hidden_states(decoder, sequences, positions, points)

    def head_outputs(
        self,
        sequences: Sequence[Sequence[int]],
        response_starts: Sequence[int],
        *,
        last_n: int,
    ) -> HeadOutputs:
        """See :meth:`LanguageModel.head_outputs`. Inside ``tempered`` the scaled outputs."""
        decoder = self._reading(sequences, response_starts=response_starts)
        with memory_errors("mlx", "reading head outputs", _READING_ADVICE):
            return heads.head_outputs(decoder, sequences, response_starts, last_n=last_n)

    def logprobs(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[Float32]:
        """See :meth:`LanguageModel.logprobs`."""
        decoder = self._reading(sequences, response_starts=response_starts, first_response=1)
        with memory_errors("mlx", "computing log-probabilities", _READING_ADVICE):
            return hidden.logprobs(decoder, sequences, response_starts)

    def token_statistics(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[TokenStatistics]:
        """See :meth:`LanguageModel.token_statistics`."""
        decoder = self._reading(sequences, response_starts=response_starts, first_response=1)
        with memory_errors("mlx", "computing token statistics", _READING_ADVICE):
            return hidden.token_statistics(decoder, sequences, response_starts)

    def tempered(self, scales: Mapping[Head, float]) -> AbstractContextManager[None]:
        """See :meth:`LanguageModel.tempered`."""
        decoder = self._decoder
        factors = layer_factors(scales, heads.attention_heads(decoder))
        return self._tempering.scaled(decoder, factors)

    def reusing_below(self) -> AbstractContextManager[None]:
        """See :meth:`LanguageModel.reusing_below`."""
        return self._decoder.reusing_below()

    def trace(self, ids: Sequence[int]) -> dict[str, Float32]:
        """See :meth:`LanguageModel.trace`."""
        return trace.trace(self._reading([ids]), ids)

    def logits(self, ids: Sequence[int]) -> Float32:
        """See :meth:`LanguageModel.logits`."""
        decoder = self._decoder
        decoder.network.eval()
        states = decoder.hidden(mx.array([list(ids)], mx.int32))
        return np.array(decoder.logits(states)[0])

    def close(self) -> None:
        """Free the weights and MLX's cached buffers."""
        self._open = self._adapter = self._trainer = None
        mx.clear_cache()
        cpu.return_freed_memory()

    @property
    def _decoder(self) -> Decoder:
        if self._open is None:
            raise UserError("this model was closed")
        return self._open

    def _reading(self, sequences: Sequence[Sequence[int]], **checked: Any) -> Decoder:
        """Return the decoder, without dropout, after :func:`check_sequences`."""
        check_sequences(sequences, vocab=self._vocab, context=self._context, **checked)
        self._decoder.network.eval()
        return self._decoder

    def _attached(self) -> lora.Adapter:
        if self._adapter is None:
            raise UserError("this model has no LoRA: call attach_lora() first")
        return self._adapter

    def _training(self) -> train.Trainer:
        if self._trainer is None:
            raise UserError("no optimiser: call attach_lora() and configure_optimizer() first")
        return self._trainer


def _cast(network: Any, dtype: mx.Dtype) -> None:
    """Set the dtype of all floating-point weights but those the model wants kept (A_log)."""
    language_model = network.language_model if "language_model" in network else network
    castable = getattr(language_model, "cast_predicate", lambda _: True)

    def cast(path: str, value: mx.array) -> mx.array:
        floating = mx.issubdtype(value.dtype, mx.floating)
        if not floating:
            return value
        return value.astype(dtype if castable(path) else mx.float32)

    network.update(tree_map_with_path(cast, network.parameters()))
