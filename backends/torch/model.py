"""A model directory opened with PyTorch and transformers."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backends.decoding import Ending
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
from backends.memory import MemoryModel, available_memory
from backends.out_of_memory import memory_errors
from backends.sequences import CPU_TOKENS, GPU_TOKENS
from backends.torch import attention, generate, heads, hidden, lora, trace, train
from backends.torch.below import reused, tensors_below
from backends.torch.cpu import return_freed_blocks
from backends.torch.memory import CUDA, MODEL
from models.directory import ModelDirectory
from models.errors import UserError
from models.from_directory import require_plain_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def open_model(
    directory: ModelDirectory, *, dtype: Dtype = "float32", device: str | None = None
) -> TorchModel:
    """Open ``directory`` on ``device``, by default the best of CUDA, MPS and CPU."""
    return TorchModel(directory, dtype=dtype, device=device)


class TorchModel(LanguageModel):
    """The torch engine. The language model's decoder is all that is ever run or adapted."""

    def __init__(
        self, directory: ModelDirectory, *, dtype: Dtype = "float32", device: str | None = None
    ) -> None:
        """Load the weights in ``dtype``. Raises UserError when they do not fit the config."""
        self.directory = directory
        self.dtype: Dtype = dtype
        self.device = torch.device(device or default_device())
        _exact_matmul()
        self.model = _load(directory, DTYPES[dtype]).to(self.device)
        self.model.requires_grad_(False)
        self.config = self.model.config.get_text_config()
        attention.install(self.config, self.device, DTYPES[dtype])
        inner = self.model.model
        self.backbone: nn.Module = getattr(inner, "language_model", inner)
        self._head: nn.Module = self.model.get_output_embeddings()
        self._cache_name = _cache_argument(self.backbone)
        self._linear = {
            f"model.layers.{name}": (module.out_features, module.in_features)
            for name, module in self.backbone.layers.named_modules()
            if isinstance(module, nn.Linear)
        }
        self._adapter: lora.Adapter | None = None
        self._trainer: train.Trainer | None = None
        # where later layers read keys and values of earlier ones (Gemma 4) none can be left out
        self._layers_alone = not getattr(self.config, "num_kv_shared_layers", 0)
        self.below = tensors_below()
        self._tempering = heads.Tempering(self.backbone, self.attention_heads(), self.below)
        self.capabilities = Capabilities(
            engine="torch",
            device=_device_name(self.device),
            dtypes=tuple(DTYPES),
            train=True,
            hidden_states=True,
            final_hidden=True,
            heads=True,
        )

    # Forward passes, used by the rest of the engine ---------------------------------------

    @property
    def reading_tokens(self) -> int:
        """Ids in one batch when sequences are read."""
        return CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS

    @property
    def prefix_saving(self) -> int:
        """Ids that a shared beginning must save: it is a pass of its own, which on a GPU takes no
        less time than a whole batch of a small model."""
        return 0 if self.device.type == "cpu" else GPU_TOKENS

    def hidden(self, ids: Tensor, **options: Any) -> Tensor:
        """Post-norm hidden states [b, T, hidden] of ids [b, T]."""
        output: Tensor = self.backbone(input_ids=ids, use_cache=False, **options).last_hidden_state
        return output

    def hidden_cached(self, ids: Tensor, cache: Any, **options: Any) -> Tensor:
        """As :meth:`hidden`, reading from and appending to ``cache``."""
        options[self._cache_name] = cache
        output: Tensor = self.backbone(input_ids=ids, use_cache=True, **options).last_hidden_state
        return output

    def head(self, hidden: Tensor) -> Tensor:
        """Float32 logits of hidden states; the head itself runs in the model's dtype."""
        logits: Tensor = self._head(hidden).float()
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    # The interface ------------------------------------------------------------------------

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
        """Decode; see :meth:`LanguageModel.generate`."""
        self.model.eval()
        ending = Ending(max_tokens, frozenset(stop_ids), stop_when)
        with memory_errors("torch", "generating", "ask for fewer tokens"):
            return generate.generate(self, prompts, ending, sampling, on_done)

    def generate_with_states(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop_ids: Sequence[int]
    ) -> list[Decoded]:
        """Decode and keep each h_last; see :meth:`LanguageModel.generate_with_states`."""
        self.model.eval()
        ending = Ending(max_tokens, frozenset(stop_ids), None)
        states: dict[int, Float32] = {}
        with memory_errors("torch", "generating", "ask for fewer tokens"):
            done = generate.generate(self, prompts, ending, GREEDY, None, states=states)
        return [Decoded(one, states.get(place)) for place, one in enumerate(done)]

    def describe(self) -> dict[str, Any]:
        """Versions, device, dtype, attention implementation, threads and adapter size."""
        packages = ("torch", "transformers", "peft")
        described = {
            "engine": "torch",
            "device": self.capabilities.device,
            "dtype": self.dtype,
            "model_fingerprint": self.directory.fingerprint,
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "attention": self.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "tf32": False,
            # torch documents run-to-run differences for CUDA and MPS reductions; not on CPU
            "bit_reproducible": self.device.type == "cpu",
        }
        if self._adapter is not None:
            described["trainable_share"] = self._adapter.trainable_share(self.model)
        return described

    def linear_modules(self) -> dict[str, tuple[int, int]]:
        """Canonical name -> (out_features, in_features)."""
        return dict(self._linear)

    def attach_lora(
        self,
        config: LoraConfig,
        weights: Mapping[str, Float32],
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Add LoRA layers; see :meth:`LanguageModel.attach_lora`."""
        if self._adapter is not None:
            raise UserError("this model already has a LoRA: open the model again for another one")
        with memory_errors("torch", "attaching the LoRA", _LORA_ADVICE):
            self._adapter = lora.attach(self.backbone, config, weights, self._linear)
        self._tempering.install()
        if gradient_checkpointing:
            if self.device.type == "cpu":
                return_freed_blocks()
            options = {"use_reentrant": False}
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)

    def lora_weights(self) -> dict[str, Float32]:
        """Return the adapter's weights as float32 copies."""
        return self._attached().weights()

    def configure_optimizer(self, config: AdamWConfig) -> None:
        """Make a fresh AdamW over the LoRA weights."""
        self._trainer = train.Trainer(self, self._attached().parameters, config)

    def accumulate(self, batch: Batch) -> LossTerms:
        """Forward and backward of one micro-batch."""
        with memory_errors("torch", "training", _TRAINING_ADVICE):
            return self._training().accumulate(batch)

    def accumulate_preferences(self, batch: PreferenceBatch) -> Float64:
        """Forward and backward of one micro-batch of pairs."""
        with memory_errors("torch", "training", _PAIRS_ADVICE):
            return self._training().accumulate_preferences(batch)

    def apply(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Clip, step, clear; returns the norm before clipping."""
        with memory_errors("torch", "updating the LoRA", _TRAINING_ADVICE):
            return self._training().apply(learning_rate, max_grad_norm)

    def evaluate_loss(self, batch: Batch) -> LossTerms:
        """Forward only."""
        with memory_errors("torch", "computing a loss", _TRAINING_ADVICE):
            return train.evaluate_loss(self, batch)

    def sequence_logprobs(self, batch: Batch) -> Float64:
        """Log-probability of each row's response, [b]."""
        with memory_errors("torch", "computing log-probabilities", _PAIRS_ADVICE):
            return train.sequence_logprobs(self, batch)

    def training_state(self) -> dict[str, NDArray[Any]]:
        """LoRA weights and AdamW moments."""
        return self._training().state()

    def load_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`training_state` returned."""
        self._training().load_state(state)

    def attention_heads(self) -> dict[int, tuple[int, int]]:
        """Layer -> (heads, head_dim)."""
        return heads.attention_heads(self._linear, int(self.config.num_attention_heads))

    def hidden_states(
        self,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[int],
        points: Sequence[HiddenPoint],
    ) -> Float32:
        """States [n, points, d]; see :meth:`LanguageModel.hidden_states`."""
        self.model.eval()
        with memory_errors("torch", "reading hidden states", _READING_ADVICE):
            return hidden.hidden_states(self, sequences, positions, points)

    def head_outputs(
        self,
        sequences: Sequence[Sequence[int]],
        response_starts: Sequence[int],
        *,
        last_n: int,
    ) -> HeadOutputs:
        """Norms and means by head; see :meth:`LanguageModel.head_outputs`."""
        self.model.eval()
        with memory_errors("torch", "reading head outputs", _READING_ADVICE):
            return heads.head_outputs(self, sequences, response_starts, last_n)

    def logprobs(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[Float32]:
        """Nats by response id; see :meth:`LanguageModel.logprobs`."""
        self.model.eval()
        with memory_errors("torch", "computing log-probabilities", _READING_ADVICE):
            return hidden.logprobs(self, sequences, response_starts)

    def token_statistics(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[TokenStatistics]:
        """Scalars by response id; see :meth:`LanguageModel.token_statistics`."""
        self.model.eval()
        with memory_errors("torch", "computing token statistics", _READING_ADVICE):
            return hidden.token_statistics(self, sequences, response_starts)

    def tempered(self, scales: Mapping[Head, float]) -> AbstractContextManager[None]:
        """Scale heads while the context lasts; see :meth:`LanguageModel.tempered`."""
        return self._tempering.scaled(layer_factors(scales, self.attention_heads()))

    def reusing_below(self) -> AbstractContextManager[None]:
        """See :meth:`LanguageModel.reusing_below`."""
        if not self._layers_alone:
            return nullcontext()
        return reused(self.below, self.backbone.layers)

    def trace(self, ids: Sequence[int]) -> dict[str, Float32]:
        """Stages of one forward pass; see :meth:`LanguageModel.trace`."""
        self.model.eval()
        return trace.trace(self, ids)

    def logits(self, ids: Sequence[int]) -> Float32:
        """Float32 logits [T, vocab] of one sequence."""
        self.model.eval()
        with torch.inference_mode():
            row = torch.tensor([list(ids)], device=self.device)
            return np.asarray(self.head(self.hidden(row))[0].cpu().numpy(), dtype=np.float32)

    def close(self) -> None:
        """Free the weights, and the device's cached blocks."""
        for name in ("model", "backbone", "_head", "_adapter", "_trainer", "_tempering", "below"):
            self.__dict__.pop(name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def _attached(self) -> lora.Adapter:
        if self._adapter is None:
            raise UserError("this model has no LoRA: attach one first")
        return self._adapter

    def _training(self) -> train.Trainer:
        if self._trainer is None:
            raise UserError("this model has no optimiser: call configure_optimizer first")
        return self._trainer


def default_device() -> str:
    """``cuda``, else ``mps``, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_dtype() -> Dtype:
    """``bfloat16`` on a CUDA device that computes it, else ``float32``.

    MPS stays at float32: its bfloat16 needs macOS 14 and was never tried here.
    """
    on_cuda = default_device() == "cuda"
    return "bfloat16" if on_cuda and torch.cuda.is_bf16_supported() else "float32"


def memory_model() -> MemoryModel:
    """What training keeps on the default device."""
    return CUDA if default_device() == "cuda" else MODEL


def free_memory() -> int:
    """Free bytes on the default device."""
    if default_device() != "cuda":
        return available_memory()
    free, _ = torch.cuda.mem_get_info()
    return int(free)


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


def _exact_matmul() -> None:
    """Keep float32 products in float32: TF32 has 10 bits of mantissa."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _load(directory: ModelDirectory, dtype: torch.dtype) -> Any:
    """Load with transformers, refusing weights that are missing or of the wrong shape.

    transformers only warns about those and fills in random numbers.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    require_plain_weights(directory.path, "the torch engine")
    try:
        # no attn_implementation: naming one raises for Gemma 4, whose audio tower has only eager
        model, info = AutoModelForCausalLM.from_pretrained(
            directory.path, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:300]
        raise UserError(f"torch cannot open model {directory.name}: {why}") from None
    for problem in ("missing_keys", "mismatched_keys"):
        if info[problem]:
            first = sorted(map(str, info[problem]))[0]
            raise UserError(
                f"model {directory.name} at {directory.path} has {len(info[problem])} weights "
                f"{problem.split('_')[0]} (first: {first}): prepare it again"
            )
    return model.eval()


def _cache_argument(backbone: nn.Module) -> str:
    """Name of the KV cache argument: renamed in transformers 5.24, old name gone in 5.40."""
    parameters = inspect.signature(backbone.forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device.type)
    return f"cuda:{device.index or 0} {torch.cuda.get_device_name(device)}"
