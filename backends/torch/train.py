"""Loss, gradients and AdamW. The vocabulary is only ever seen a chunk of positions at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from backends.batching import sum_by_row
from backends.interface import AdamWConfig, Batch, Float64, LossTerms, PreferenceBatch
from backends.preference_loss import row_coefficients
from models.errors import UserError

if TYPE_CHECKING:
    from backends.torch.model import TorchModel

HEAD_CHUNK_ELEMENTS = 1 << 24
"""Logits in one chunk of the language-model head: 64 MiB in float32."""
FLOAT16_LOSS_SCALE = 256.0
"""Keeps float16 activation gradients, which are divided by the step's tokens (or pairs), from
underflow. At 1,024 a batch of 14 tokens, or of two pairs, overflows in the tiny Qwen3.5."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Trainer:
    """AdamW over the LoRA parameters, and the gradients that go into it."""

    def __init__(
        self, model: TorchModel, parameters: Mapping[str, nn.Parameter], config: AdamWConfig
    ) -> None:
        self._model, self._parameters = model, parameters
        self._loss_scale = FLOAT16_LOSS_SCALE if model.dtype == "float16" else 1.0
        self._steps = 0
        self._optimizer = torch.optim.AdamW(
            parameters.values(),
            lr=0.0,  # set by every step
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    def accumulate(self, batch: Batch) -> LossTerms:
        """Add the gradient of nll_sum / normaliser to the parameters' gradients."""

        def weigh(nll: Float64) -> Float64:
            return np.full(len(nll), 1.0 / batch.normaliser)

        return _terms(self._backward(batch, weigh))

    def accumulate_preferences(self, batch: PreferenceBatch) -> Float64:
        """Add the gradient of the DPO loss; returns the rows' log-probabilities [2p]."""

        def weigh(nll: Float64) -> Float64:
            policy = sum_by_row(batch.rows, -nll)
            rows = batch.rows.loss_mask.nonzero()[0]
            return -row_coefficients(batch, policy)[rows]

        return sum_by_row(batch.rows, -self._backward(batch.rows, weigh))

    def _backward(self, batch: Batch, weigh: Callable[[Float64], Float64]) -> Float64:
        """Forward, then backward of the sum of NLLs, each times its weight; returns the NLLs [n].

        ``weigh`` gets the NLLs of all n response ids, since DPO's weights depend on them.
        The head is frozen and comes last, so each chunk's gradient with respect to the hidden
        states is taken at once and its logits are freed: scaled by the weights, it drives one
        backward pass through the decoder, and nothing of size positions x vocabulary exists.
        """
        self._model.model.train()
        with _seeded(batch.seed, self._model.device):
            hidden, targets = _response_states(self._model, batch)
            leaf = hidden.detach().requires_grad_()
            parts = []
            for states, wanted in _chunks(self._model, leaf, targets):
                nll = _nll(self._model, states, wanted)
                nll.sum().backward()
                parts.append(nll.detach())
            found = _float64(torch.cat(parts))
            weights = torch.from_numpy(weigh(found) * self._loss_scale).float().to(hidden.device)
            slopes = leaf.grad.float() * weights[:, None]
            hidden.backward(slopes.to(hidden.dtype))
        return found

    def apply(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Clip to a global L2 norm, step, clear; returns the norm before clipping."""
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        if len(gradients) != len(self._parameters):
            raise RuntimeError("a LoRA weight got no gradient: it is not part of the model's graph")
        if self._loss_scale != 1.0:
            torch._foreach_mul_(gradients, 1.0 / self._loss_scale)
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):  # no step: AdamW would keep the damage in its averages
            self._optimizer.zero_grad(set_to_none=True)
            return float(norm)
        if max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters.values(), max_grad_norm, norm)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        return float(norm)

    def weights(self) -> Tensor:
        """All LoRA weights as one float32 vector, on the model's device."""
        return nn.utils.parameters_to_vector(self._parameters.values()).detach()

    def take_weights(self, vector: Tensor) -> None:
        """Set the LoRA weights from :meth:`weights` of another process."""
        with torch.no_grad():
            nn.utils.vector_to_parameters(vector, self._parameters.values())

    def gradient(self) -> Tensor:
        """The gradient so far as one float32 vector; zeros where nothing was accumulated."""
        parts = [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in self._parameters.values()
        ]
        return torch.cat(parts)

    def take_gradient(self, vector: Tensor | None) -> None:
        """Replace the gradient by one as :meth:`gradient` gives it; None: forget it."""
        place = 0
        for parameter in self._parameters.values():
            if vector is None:
                parameter.grad = None
                continue
            parameter.grad = vector[place : place + parameter.numel()].view_as(parameter).clone()
            place += parameter.numel()

    def state(self) -> dict[str, NDArray[Any]]:
        """LoRA weights, first and second moments, and the number of steps."""
        state: dict[str, NDArray[Any]] = {"step": np.array([self._steps], np.int64)}
        for name, parameter in self._parameters.items():
            state[f"weight.{name}"] = _numpy(parameter)
            for moment in _MOMENTS if self._steps else ():
                state[f"{moment}.{name}"] = _numpy(self._optimizer.state[parameter][moment])
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore :meth:`state`; raises UserError when it is of another adapter."""
        expected = {f"weight.{name}": p.shape for name, p in self._parameters.items()}
        for name, shape in expected.items():
            if name not in state or state[name].shape != tuple(shape):
                raise UserError(f"the training state does not fit this LoRA: {name}")
        self._steps = int(state["step"][0])
        for name, parameter in self._parameters.items():
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(np.array(state[f"weight.{name}"])))
            parameter.grad = None
            self._optimizer.state.pop(parameter, None)
            if self._steps:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(self._steps)),
                    **{
                        moment: torch.from_numpy(np.array(state[f"{moment}.{name}"])).to(parameter)
                        for moment in _MOMENTS
                    },
                }


def evaluate_loss(model: TorchModel, batch: Batch) -> LossTerms:
    """Forward only, dropout off."""
    return _terms(_evaluate(model, batch))


def sequence_logprobs(model: TorchModel, batch: Batch) -> Float64:
    """Log-probability of each row's response [b], dropout off."""
    return sum_by_row(batch, -_evaluate(model, batch))


def _evaluate(model: TorchModel, batch: Batch) -> Float64:
    """NLL [n] of the response ids, dropout off."""
    model.model.eval()
    with torch.no_grad():
        hidden, targets = _response_states(model, batch)
        parts = [_nll(model, *chunk) for chunk in _chunks(model, hidden, targets)]
    return _float64(torch.cat(parts))


def _terms(nll: Float64) -> LossTerms:
    return LossTerms(nll_sum=float(nll.sum()), tokens=len(nll))


def _response_states(model: TorchModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Hidden states [n, hidden] that predict the n response ids, and those ids [n].

    No attention mask: with right padding a causal model never looks at it.
    """
    ids = torch.from_numpy(batch.ids.astype(np.int64)).to(model.device)
    rows, columns = (torch.from_numpy(axis).to(model.device) for axis in batch.loss_mask.nonzero())
    hidden = model.hidden(ids)
    return hidden[rows, columns - 1], ids[rows, columns]


def _chunks(model: TorchModel, hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, HEAD_CHUNK_ELEMENTS // int(model.config.vocab_size))
    return zip(hidden.split(size), targets.split(size), strict=True)


def _nll(model: TorchModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihoods (nats) [n], log-softmax in float32."""
    return functional.cross_entropy(model.head(hidden), targets, reduction="none")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw dropout masks from ``seed`` without moving the process's own generators."""
    # fork_rng knows CUDA and the CPU; on MPS the seed below sets the device's generator for good
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _float64(tensor: Tensor) -> Float64:
    """A copy on the host; sums in float64 do not depend on their order to any digit that matters.

    Widened there, since MPS has no float64.
    """
    return np.asarray(tensor.cpu().numpy(), dtype=np.float64)


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.array(tensor.detach().cpu().numpy())
