"""The backend interface: what an engine must do, and nothing it could decide differently.

Token ids, data order, loss masks, the learning-rate schedule and the LoRA start
values are decided outside (numpy, Python) and handed in. See DESIGN section 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from models.errors import CapabilityError

Dtype = Literal["float32", "bfloat16", "float16"]
FinishReason = Literal["stop", "length"]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Capabilities:
    """What an opened engine can do, and on what it runs."""

    engine: str
    """``torch``, ``mlx``, ``llamacpp`` or ``scripted``."""
    device: str
    """For people and the manifest, e.g. ``cpu``, ``cuda:0 NVIDIA H100``, ``mps``, ``metal``."""
    dtypes: tuple[str, ...]
    generate: bool = True
    train: bool = False


@dataclass(frozen=True)
class Prompt:
    """Token ids to continue, under the id of the item they belong to."""

    item_id: str
    ids: tuple[int, ...]


StopWhen = Callable[[tuple[int, ...]], bool]
"""Given the ids generated so far, has a stop string been completed by the last of them?"""


@dataclass(frozen=True)
class Completion:
    """One decode. Text is derived from ``ids`` by :class:`models.chat.ChatEncoder`, never stored.

    ``ids`` holds every generated id, the stop token included when there is one.
    """

    item_id: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    finish_reason: FinishReason
    """``stop``: a stop id or a completed stop string; ``length``: the budget ran out."""
    seconds: float


OnDone = Callable[[Completion], None]


@dataclass(frozen=True)
class LoraConfig:
    """LoRA in PEFT's terms."""

    rank: int
    alpha: float
    targets: Literal["attention", "all"] = "attention"
    """``attention``: q, k, v, o projections; ``all``: gate, up and down projections as well."""
    dropout: float = 0.0
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""

    @property
    def scale(self) -> float:
        """Factor on B @ A @ x (LoRA, arXiv 2106.09685; rsLoRA, arXiv 2312.03732)."""
        root = float(np.sqrt(self.rank)) if self.rslora else float(self.rank)
        return self.alpha / root


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW with decoupled weight decay and bias correction (arXiv 1711.05101)."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Batch:
    """One micro-batch, right-padded."""

    ids: NDArray[np.int32]
    """[b, T] token ids; positions at and after ``lengths`` are padding of arbitrary value."""
    lengths: NDArray[np.int32]
    """[b] number of real ids in each row."""
    loss_mask: NDArray[np.bool_]
    """[b, T] True where the id is a response id, predicted from the ids before it.
    Column 0 is always False."""
    normaliser: float
    """Response ids in the whole optimiser step, all micro-batches together: the loss of the
    step is the sum of token NLLs divided by this."""
    seed: int = 0
    """Seeds LoRA dropout for this micro-batch, so that a resumed run draws the same masks."""


@dataclass(frozen=True)
class LossTerms:
    """Sum of negative log-likelihoods (nats) over ``tokens`` response ids."""

    nll_sum: float
    tokens: int


class LanguageModel(ABC):
    """A model opened on one engine.

    An operation the engine cannot do raises :class:`models.errors.CapabilityError`.
    """

    capabilities: Capabilities

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop_ids: Sequence[int],
        stop_when: StopWhen | None = None,
        on_done: OnDone | None = None,
    ) -> list[Completion]:
        """Decode greedily (arg-max of float32 logits, lowest id on a tie).

        Returns completions in the order of ``prompts``; ``on_done`` sees each as it ends.
        Raises UserError when a prompt is empty or prompt + max_tokens exceeds the context.
        """

    def describe(self) -> dict[str, Any]:
        """How numbers from this engine were made, for the manifest (JSON-able)."""
        return {"engine": self.capabilities.engine, "device": self.capabilities.device}

    def linear_modules(self) -> dict[str, tuple[int, int]]:
        """LoRA-capable linear layers of the language model's decoder layers.

        Returns canonical name -> (out_features, in_features). Canonical names are those of
        the text-only torch model, ``model.layers.3.self_attn.q_proj``, on every engine.
        """
        raise self._cannot("list linear modules")

    def attach_lora(
        self,
        config: LoraConfig,
        weights: Mapping[str, Float32],
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Freeze the base and add LoRA layers with exactly the given float32 weights.

        ``weights``: ``<canonical module>.lora_A`` (rank, in) and ``<canonical module>.lora_B``
        (out, rank) for every adapted module. Raises UserError when a module is missing or a
        shape differs.
        """
        raise self._cannot("attach a LoRA")

    def lora_weights(self) -> dict[str, Float32]:
        """Return the adapter's weights, float32, named as in :meth:`attach_lora`."""
        raise self._cannot("return LoRA weights")

    def configure_optimizer(self, config: AdamWConfig) -> None:
        """Make a fresh optimiser over the attached LoRA weights."""
        raise self._cannot("train")

    def accumulate(self, batch: Batch) -> LossTerms:
        """Forward and backward; adds the gradient of nll_sum / normaliser. Returns the loss terms.

        Only logits at response positions are computed, in chunks.
        """
        raise self._cannot("train")

    def apply(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Clip the accumulated gradient to a global L2 norm, step AdamW, clear the gradient.

        Returns the global norm before clipping.
        """
        raise self._cannot("train")

    def evaluate_loss(self, batch: Batch) -> LossTerms:
        """Forward only, dropout off; gradients are untouched."""
        raise self._cannot("evaluate a loss")

    def training_state(self) -> dict[str, NDArray[Any]]:
        """Optimiser state and LoRA weights as numpy arrays, enough for an exact resume."""
        raise self._cannot("save training state")

    def load_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`training_state` returned (after attach_lora, configure_optimizer)."""
        raise self._cannot("load training state")

    def logits(self, ids: Sequence[int]) -> Float32:
        """Float32 logits [T, vocab] of one unpadded sequence, for verification on short inputs."""
        raise self._cannot("return logits")

    def close(self) -> None:
        """Free the model's memory; the object must not be used afterwards."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _cannot(self, what: str) -> CapabilityError:
        return CapabilityError(f"the {self.capabilities.engine} engine cannot {what}")
