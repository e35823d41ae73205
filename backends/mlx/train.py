"""LoRA training on MLX: the loss of one micro-batch, its gradient, and the AdamW step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from numpy.typing import NDArray

from backends.batching import sum_by_row
from backends.interface import (
    AdamWConfig,
    Batch,
    Float32,
    Float64,
    LossTerms,
    PreferenceBatch,
)
from backends.mlx.compiled import wanted
from backends.mlx.cpu import fast_attention
from backends.mlx.decoder import Decoder
from backends.mlx.lora import Adapter, from_numpy, to_numpy
from backends.mlx.loss import response_nll, sum_last
from models.errors import UserError

FLOAT16_LOSS_SCALE = 256.0
"""Keeps float16 activation gradients, which are divided by the step's tokens (or pairs), from
underflow. At 1,024 a batch of 14 tokens, or of two pairs, overflows in the tiny Qwen3.5."""
_MOMENTS = {"exp_avg": "m", "exp_avg_sq": "v"}
"""Name in a training state -> mlx's name of Adam's running averages."""


def positions_and_targets(batch: Batch) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Flat positions in [b, T - 1] that predict response ids, and those ids."""
    inside = np.arange(batch.ids.shape[1])[None, :] < batch.lengths[:, None]
    predicts = (batch.loss_mask & inside)[:, 1:]
    positions = np.flatnonzero(predicts).astype(np.int32)
    return positions, batch.ids[:, 1:][predicts].astype(np.int32)


def _inputs(batch: Batch) -> mx.array:
    """Ids [b, T - 1]; padding is set to 0, since it may hold anything."""
    inside = np.arange(batch.ids.shape[1])[None, :] < batch.lengths[:, None]
    return mx.array(np.where(inside, batch.ids, 0)[:, :-1].astype(np.int32))


def _token_nll(decoder: Decoder, batch: Batch, *, gradient: bool) -> Callable[[], mx.array]:
    """Return a function that computes the NLL [n] of the batch's response ids."""
    places, targets = positions_and_targets(batch)
    ids, picked, wanted = _inputs(batch), mx.array(places), mx.array(targets)

    def compute() -> mx.array:
        hidden = decoder.hidden(ids).reshape(-1, decoder.dimension)[picked]
        return response_nll(decoder, hidden, wanted, gradient=gradient)

    return compute


def _terms(nll: mx.array) -> LossTerms:
    return LossTerms(float(_host(nll).sum()), int(nll.size))


def _host(values: mx.array) -> Float64:
    """A float64 copy: mlx's CPU sums are sequential float32."""
    return np.array(values).astype(np.float64)


def evaluate_loss(decoder: Decoder, batch: Batch) -> LossTerms:
    """Loss terms of ``batch`` with dropout off; nothing is kept."""
    decoder.network.eval()
    nll = _token_nll(decoder, batch, gradient=False)()
    return _terms(nll)


def sequence_logprobs(decoder: Decoder, batch: Batch) -> Float64:
    """Log-probability of each row's response [b] with dropout off; nothing is kept."""
    decoder.network.eval()
    return sum_by_row(batch, -_host(_token_nll(decoder, batch, gradient=False)()))


def _preference_loss(batch: PreferenceBatch) -> Callable[[mx.array], mx.array]:
    """Return the DPO loss as a function of the NLLs [n]; backends/preference_loss.py in mlx.

    Rows are summed in two levels. The gradient of a row's ids depends on the loss of its pair,
    so it is left to autograd.
    """
    counts = batch.rows.loss_mask.sum(axis=1)
    inside = np.arange(max(int(counts.max()), 1)) < counts[:, None]
    places = np.zeros(inside.shape, np.int32)
    places[inside] = np.arange(int(counts.sum()))
    index, real = mx.array(places), mx.array(inside)
    reference = mx.array(batch.reference.astype(np.float32))

    def loss(nll: mx.array) -> mx.array:
        policy = -sum_last(mx.where(real, nll[index], 0.0))[:, 0]
        rewards = batch.beta * (policy - reference)
        margins = rewards[: batch.pairs] - rewards[batch.pairs :]
        losses = mx.logaddexp(mx.zeros_like(margins), -margins)
        return losses.sum() / batch.rows.normaliser

    return loss


class Trainer:
    """Accumulated gradients and AdamW over the weights of one adapter."""

    def __init__(self, decoder: Decoder, adapter: Adapter, config: AdamWConfig) -> None:
        self._decoder, self._adapter = decoder, adapter
        self._config = config
        half = decoder.dtype == mx.float16
        self._loss_scale = FLOAT16_LOSS_SCALE if half else 1.0
        self._optimizer = _adamw(config)
        self._optimizer.init(adapter.parameters())
        self._gradient: dict[str, mx.array] | None = None
        self._compiled: Any = None
        """The optimiser's step; of this optimiser object, so made anew with it."""

    def accumulate(self, batch: Batch) -> LossTerms:
        """Add the gradient of nll_sum / normaliser; returns the loss terms."""
        return _terms(self._backward(batch, lambda nll: nll.sum() / batch.normaliser))

    def accumulate_preferences(self, batch: PreferenceBatch) -> Float64:
        """Add the gradient of the DPO loss; returns the rows' log-probabilities [2p]."""
        loss = _preference_loss(batch)
        return sum_by_row(batch.rows, -_host(self._backward(batch.rows, loss)))

    def _backward(self, batch: Batch, objective: Callable[[mx.array], mx.array]) -> mx.array:
        """Add the gradient of ``objective`` of the NLLs [n]; returns the NLLs."""
        parameters = self._adapter.parameters()
        token_nll = _token_nll(self._decoder, batch, gradient=True)
        scale = self._loss_scale

        def loss(values: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
            self._adapter.set_parameters(values)
            nll = token_nll()
            return objective(nll) * scale, nll

        self._adapter.reseed(batch.seed)
        # Gated DeltaNet's Metal kernel has no gradient; training mode takes the other path.
        self._decoder.network.train()
        try:
            with fast_attention():  # gradient checkpointing calls the layers again from here
                (_, nll), gradient = mx.value_and_grad(loss)(parameters)
        finally:
            self._adapter.set_parameters(parameters)
            self._decoder.network.eval()
        if scale != 1.0:
            gradient = {name: value / scale for name, value in gradient.items()}
        if self._gradient is not None:
            gradient = {name: self._gradient[name] + gradient[name] for name in gradient}
        mx.eval(nll, gradient)
        self._gradient = gradient
        return nll

    def apply(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Clip to a global L2 norm, step AdamW, clear; returns the norm before clipping."""
        if self._gradient is None:
            raise UserError("apply() without a gradient: call accumulate() first")
        gradient, self._gradient = self._gradient, None
        norm = global_norm(gradient)
        if not math.isfinite(norm):  # no step: AdamW would keep the damage in its averages
            return norm
        if max_grad_norm is not None and norm > max_grad_norm:
            # As torch.nn.utils.clip_grad_norm_ does, with its 1e-6 against a division by zero.
            factor = max_grad_norm / (norm + 1e-6)
            gradient = {name: value * factor for name, value in gradient.items()}
        self._optimizer.learning_rate = learning_rate
        updated = self._update(gradient, self._adapter.parameters())
        self._adapter.set_parameters(updated)
        mx.eval(updated, self._optimizer.state)
        return norm

    def _update(
        self, gradient: dict[str, mx.array], weights: dict[str, mx.array]
    ) -> dict[str, mx.array]:
        """One AdamW step; compiled on a GPU, with the optimiser's state as input and output.

        State that is only captured would stay as it was at the first call, for ever.
        """
        if not wanted():
            return dict(self._optimizer.apply_gradients(gradient, weights))
        if self._compiled is None:
            state = self._optimizer.state
            self._compiled = mx.compile(self._optimizer.apply_gradients, state, state)
        return dict(self._compiled(gradient, weights))

    def state(self) -> dict[str, NDArray[Any]]:
        """``step`` [1], and for every weight its value and, after a step, Adam's averages."""
        found: dict[str, NDArray[Any]] = {"step": np.array([self._steps], np.int64)}
        for name, value in self._adapter.parameters().items():
            found[f"weight.{name}"] = to_numpy(value)
            for key, short in _MOMENTS.items() if self._steps else ():
                found[f"{key}.{name}"] = to_numpy(self._optimizer.state[name][short])
        return found

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned. Raises UserError when it is another LoRA's."""
        steps = int(state["step"][0])
        _check_state(state, self._adapter.weights(), moments=steps > 0)
        names = list(self._adapter.parameters())
        weights = {name: from_numpy(state[f"weight.{name}"]) for name in names}
        self._adapter.set_parameters(weights)
        self._optimizer, self._compiled = _adamw(self._config), None
        self._optimizer.init(weights)
        for name in names:
            for key, short in _MOMENTS.items() if steps else ():
                self._optimizer.state[name][short] = from_numpy(state[f"{key}.{name}"])
        self._optimizer.state["step"] = mx.array(steps, mx.uint64)
        self._gradient = None
        mx.eval(weights, self._optimizer.state)

    @property
    def _steps(self) -> int:
        return int(self._optimizer.step.item())


def _adamw(config: AdamWConfig) -> Any:
    """AdamW as torch has it: mlx's default leaves the bias correction out."""
    return optim.AdamW(
        learning_rate=0.0,  # set by every step
        betas=[config.beta1, config.beta2],
        eps=config.eps,
        weight_decay=config.weight_decay,
        bias_correction=True,
    )


def _check_state(
    state: Mapping[str, NDArray[Any]], weights: Mapping[str, Float32], *, moments: bool
) -> None:
    kinds = ("weight", *_MOMENTS) if moments else ("weight",)
    for name, weight in weights.items():
        for key in (f"{kind}.{name}" for kind in kinds):
            if key not in state or state[key].shape != weight.shape:
                raise UserError(f"the training state does not fit this LoRA: {key}")


def global_norm(gradient: Mapping[str, mx.array]) -> float:
    """L2 norm over all arrays. Summed by rows first: mlx's CPU sums are sequential float32."""
    squares = mx.stack([value.square().sum(-1).sum() for value in gradient.values()])
    return float(np.sqrt(np.array(squares).sum(dtype=np.float64)))


def checkpoint_layers(decoder: Decoder) -> None:
    """Recompute every decoder layer in the backward pass instead of keeping its activations."""
    for layer in decoder.backbone.layers:
        layer.__class__ = _checkpointed(type(layer))


def _checkpointed(cls: type) -> type:
    """Return a subclass that checkpoints its call in training mode; other instances keep theirs."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return cls.__call__(self, *args, **kwargs)

        def run(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            self.update(parameters)
            return cls.__call__(self, *args, **kwargs)

        return mx.checkpoint(run)(self.trainable_parameters(), *args, **kwargs)

    return type(cls.__name__, (cls,), {"__call__": call})
