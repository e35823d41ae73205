"""Where the time of one micro-batch goes on MLX, for ``threearc bench train``."""

from __future__ import annotations

import time

import mlx.core as mx

from backends.interface import Batch, LanguageModel
from backends.mlx.loss import response_nll
from backends.mlx.model import MlxModel
from backends.mlx.train import _inputs, positions_and_targets


def phases(model: LanguageModel, batch: Batch) -> dict[str, float]:
    """Seconds by phase of :meth:`LanguageModel.accumulate`, whose gradient is added as there.

    The decoder's forward pass and the head are evaluated and timed apart first; the backward
    pass is what the whole takes beyond them.
    """
    if not isinstance(model, MlxModel):
        raise TypeError(f"not the mlx engine: {type(model).__name__}")
    decoder = model._decoder
    decoder.network.train()
    marks = [time.perf_counter()]
    places, targets = positions_and_targets(batch)
    hidden = decoder.hidden(_inputs(batch)).reshape(-1, decoder.dimension)[mx.array(places)]
    mx.eval(hidden)
    marks.append(time.perf_counter())
    wanted = mx.array(targets)

    def loss(states: mx.array) -> mx.array:
        return response_nll(decoder, states, wanted, gradient=True).sum()

    mx.eval(mx.value_and_grad(loss)(hidden))
    marks.append(time.perf_counter())
    model.accumulate(batch)
    marks.append(time.perf_counter())
    forward, head, whole = (later - marks[i] for i, later in enumerate(marks[1:]))
    backward = max(0.0, whole - forward - head)
    return {"decoder_forward": forward, "head_and_loss": head, "decoder_backward": backward}
