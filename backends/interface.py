"""The backend interface: what an engine must do, and nothing it could decide differently.

Token ids, data order, loss masks, the learning-rate schedule and the LoRA start
values are decided outside (numpy, Python) and handed in. See DESIGN section 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.errors import CapabilityError, UserError

Dtype = Literal["float32", "bfloat16", "float16"]
FinishReason = Literal["stop", "length"]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
QUANTISED_BITS = (4, 8)
"""What the weights under a LoRA can be quantised to, where an engine can."""
PROCESSES = "processes"
"""Of :meth:`LanguageModel.describe`: how many train together, where it is more than one. Sums of
their gradients round differently."""


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
    hidden_states: bool = False
    """:meth:`LanguageModel.hidden_states` at any point; ``final_hidden`` alone: h_last only."""
    final_hidden: bool = False
    heads: bool = False
    """:meth:`LanguageModel.head_outputs` and :meth:`LanguageModel.tempered`."""


@dataclass(frozen=True)
class Prompt:
    """Token ids to continue, under the id of the item they belong to."""

    item_id: str
    ids: tuple[int, ...]
    sample: int = 0
    """Which of several samples of the item this is; part of the key of its noise."""
    generated: tuple[int, ...] = ()
    """Ids that an earlier call generated until its budget ran out. They are read again one a
    step, as they were made (ingested together they would give other numbers, BACKENDS section
    8), and decoding goes on behind them: ``max_tokens`` counts them, the completion holds them."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; one definition for every engine (backends/sampling.py).

    In this order: repetition penalty, temperature, top-k, top-p, min-p, Gumbel noise for the
    tokens that are left, arg-max, lowest id on a tie.
    """

    temperature: float = 0.0
    """0: greedy. No filter and no noise is applied then, the repetition penalty is."""
    top_k: int = 0
    """Keep the k largest; 0: all."""
    top_p: float = 1.0
    """Keep the smallest set of the most probable tokens with at least this probability."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the most probable one's probability."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of ids that occurred (Keskar et al. 2019,
    arXiv 1909.05858, as in transformers); 1: none."""
    repetition_window: int | None = None
    """How many of the latest prompt and generated ids count as occurred; None: all."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, holds, allowed in (
            ("temperature", self.temperature, self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k, self.top_k >= 0, "at least 0"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty),
                "above 0",
            ),
            (
                "repetition_window",
                self.repetition_window,
                self.repetition_window is None or self.repetition_window > 0,
                "above 0, or none for all ids",
            ),
            ("seed", self.seed, 0 <= self.seed < 2**64, "a whole number from 0 to 2^64 - 1"),
        ):
            if not holds:
                raise UserError(f"sampling: {name} is {value}: it must be {allowed}")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0.0


GREEDY = Sampling()


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
    sample: int = 0
    near_ties: int | None = None
    """Steps at which another engine's rounding could have chosen another token: the margin of
    the arg-max, or of a filter's edge, was below backends.sampling.NEAR_TIE. None: not counted."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability (nats, float32) of each of ``ids`` under the logits as the model gave them:
    temperature 1, no penalty, no filter. None: not kept."""


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
class PreferenceBatch:
    """One micro-batch of p preference pairs."""

    rows: Batch
    """2p rows: chosen responses first, so that rows i and i + p are a pair. ``normaliser`` is
    the number of pairs in the whole optimiser step."""
    reference: Float64
    """[2p] log-probability (nats) of each row's response under the reference model."""
    beta: float

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.rows.lengths) // 2


@dataclass(frozen=True)
class LossTerms:
    """Sum of negative log-likelihoods (nats) over ``tokens`` response ids."""

    nll_sum: float
    tokens: int


class Head(NamedTuple):
    """One attention head: layer index as in the model (DeltaNet layers counted), head index."""

    layer: int
    head: int


class HiddenPoint(NamedTuple):
    """Where a hidden state is read.

    ``layer`` 0 is the embedding's output (as it enters the first decoder layer), i the output
    of decoder layer i, counted from 1. ``normed``: after the model's final norm. ``h_last`` is
    HiddenPoint(n_layers, True).
    """

    layer: int
    normed: bool


class TokenStatistics(NamedTuple):
    """How sure a model was of each response id, from its logits as they are; [T] float32 each."""

    nll: Float32
    """Negative log-probability (nats) of the id."""
    entropy: Float32
    """Of the distribution it came from (nats)."""
    margin: Float32
    """Largest logit minus the second largest."""


class Decoded(NamedTuple):
    """A completion with the state that its stop token was chosen from."""

    completion: Completion
    state: Float32 | None
    """h_last at LAST_CONTENT, [d] float32; None for a completion without a stop token, whose last
    id never went through the model."""


@dataclass(frozen=True)
class HeadOutputs:
    """What enters o_proj, by head, over the last response tokens of each sequence."""

    layers: tuple[int, ...]
    """Layers with attention, in order; Gated DeltaNet layers have no o_proj."""
    norms: tuple[Float32, ...]
    """One [n, heads] array a layer: L2 norm over head_dim, mean over the tokens."""
    means: tuple[Float32, ...]
    """One [n, heads, head_dim] array a layer: mean vector over the tokens."""
    tokens: tuple[int, ...]
    """[n] number of tokens that the means are over: last_n, or fewer in a short response."""


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
        sampling: Sampling = GREEDY,
    ) -> list[Completion]:
        """Decode; the next token is chosen from float32 logits as ``sampling`` says.

        In float32 the same prompts, seed and samples give the same tokens on every engine, in
        any order and any batch. Returns completions in the order of ``prompts``; ``on_done``
        sees each as it ends.
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

    def accumulate_preferences(self, batch: PreferenceBatch) -> Float64:
        """Forward and backward of the DPO loss (backends/preference_loss.py).

        Adds the gradient of (sum of the pairs' losses) / normaliser, and returns the policy's
        log-probability (nats) of each row's response, [2p]: losses and rewards follow from it.
        """
        raise self._cannot("train")

    def accumulate_step(self, batches: Sequence[Batch]) -> Iterator[LossTerms]:
        """:meth:`accumulate` of all micro-batches of a step, in their order.

        A model in several processes shares them out, and has done all when it gives the first.
        """
        return map(self.accumulate, batches)

    def accumulate_preferences_step(self, batches: Sequence[PreferenceBatch]) -> Iterator[Float64]:
        """:meth:`accumulate_preferences` of all micro-batches of a step, in their order."""
        return map(self.accumulate_preferences, batches)

    def apply(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Clip the accumulated gradient to a global L2 norm, step AdamW, clear the gradient.

        Returns the global norm before clipping. When that is not finite, the weights are of no
        use afterwards: keep :meth:`lora_weights` from before.
        """
        raise self._cannot("train")

    def evaluate_loss(self, batch: Batch) -> LossTerms:
        """Forward only, dropout off; gradients are untouched."""
        raise self._cannot("evaluate a loss")

    def sequence_logprobs(self, batch: Batch) -> Float64:
        """Log-probability (nats) of each row's response ids together, [b]; dropout off.

        The same forward pass and mask as in training, so that DPO's reference and policy differ
        in their weights only. A row without response ids has 0.
        """
        raise self._cannot("return log-probabilities")

    def training_state(self) -> dict[str, NDArray[Any]]:
        """Optimiser state and LoRA weights as numpy arrays, enough for an exact resume."""
        raise self._cannot("save training state")

    def load_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`training_state` returned (after attach_lora, configure_optimizer)."""
        raise self._cannot("load training state")

    def attention_heads(self) -> dict[int, tuple[int, int]]:
        """Layer index -> (heads, head_dim) of every layer that has an o_proj."""
        raise self._cannot("tell attention heads apart")

    def hidden_states(
        self,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[int],
        points: Sequence[HiddenPoint],
    ) -> Float32:
        """Float32 hidden states [n, len(points), d] of n sequences of ids, one position each.

        Batched inside with right padding; a batch's size changes nothing but rounding. Only the
        points asked for are kept, and no logits are computed. Raises UserError for an empty
        sequence, ids outside the vocabulary, a position outside its sequence, a layer that is
        not there, or a sequence longer than the context.
        """
        raise self._cannot("return hidden states")

    def head_outputs(
        self,
        sequences: Sequence[Sequence[int]],
        response_starts: Sequence[int],
        *,
        last_n: int,
    ) -> HeadOutputs:
        """Per-head norms and mean vectors at the o_proj input, all layers in one forward pass.

        Over the last ``last_n`` ids of each sequence, but none before its ``response_start``
        (the index of the first response id). Raises UserError as :meth:`hidden_states`, and for
        an empty response.
        """
        raise self._cannot("return head outputs")

    def logprobs(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[Float32]:
        """Log-probability (nats) of each response id given the ids before it, one array each.

        The head is run on response positions only, in chunks. Raises UserError as
        :meth:`hidden_states`, and for a response that starts at id 0 or holds nothing.
        """
        raise self._cannot("return log-probabilities")

    def token_statistics(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> list[TokenStatistics]:
        """Scalars of each response id's distribution, as :meth:`logprobs` reads them."""
        raise self._cannot("return token statistics")

    def generate_with_states(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop_ids: Sequence[int]
    ) -> list[Decoded]:
        """Decode greedily as :meth:`generate` does, and keep each answer's h_last on the way.

        The state after an answer's last id is what its stop token is chosen from, so reading it
        costs no forward pass.
        """
        raise self._cannot("keep states while it generates")

    def tempered(self, scales: Mapping[Head, float]) -> AbstractContextManager[None]:
        """Scale the o_proj input of heads while the context lasts, prompt and new ids alike.

        A LoRA on o_proj is scaled with it. Contexts nest (factors of one head multiply) and are
        undone exactly, also by an exception. A factor of 1 is bit-identical to none. Raises
        UserError for a head that is not there, listing those that are.
        """
        raise self._cannot("temper heads")

    def reusing_below(self) -> AbstractContextManager[None]:
        """While it lasts, states below the lowest scaled layer are computed once a batch.

        For scaling the heads of a layer one after the other over the same sequences: numbers are
        the same to the last bit. An engine or architecture that cannot computes everything.
        Weights must not change meanwhile.
        """
        return nullcontext()

    def trace(self, ids: Sequence[int]) -> dict[str, Float32]:
        """Every stage of one unpadded forward pass, in the order of computation, float32.

        Names, the same on every engine: ``embedding`` (as it enters layer 0); for each layer i
        from 0: ``layers.i.norm`` (input norm's output), ``layers.i.mixer`` (the input of o_proj,
        or of a Gated DeltaNet layer's out_proj), ``layers.i.o_proj`` (its output),
        ``layers.i.mlp`` (the MLP's output), ``layers.i.output``; ``norm``; ``logits``. Arrays
        are [T, width]. For finding where two engines part.
        """
        raise self._cannot("trace a forward pass")

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
