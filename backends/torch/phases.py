"""Where the time of one micro-batch goes on torch, for ``threearc bench train``."""

from __future__ import annotations

import time

import torch

from backends.interface import Batch, LanguageModel
from backends.torch import train
from backends.torch.model import TorchModel


def phases(model: LanguageModel, batch: Batch) -> dict[str, float]:
    """Seconds by phase of :meth:`LanguageModel.accumulate`, whose gradient is added as there.

    The decoder's forward pass and the head are run and timed apart first; the backward pass is
    what the whole takes beyond them.
    """
    if not isinstance(model, TorchModel):
        raise TypeError(f"not the torch engine: {type(model).__name__}")
    model.model.train()
    marks = [_now(model)]
    hidden, targets = train._response_states(model, batch)
    marks.append(_now(model))
    leaf = hidden.detach().requires_grad_()
    del hidden  # with its graph
    for states, wanted in train._chunks(model, leaf, targets):
        train._nll(model, states, wanted).sum().backward()
    marks.append(_now(model))
    model.accumulate(batch)
    marks.append(_now(model))
    forward, head, whole = (later - marks[i] for i, later in enumerate(marks[1:]))
    backward = max(0.0, whole - forward - head)
    return {"decoder_forward": forward, "head_and_loss": head, "decoder_backward": backward}


def _now(model: TorchModel) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    elif model.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
