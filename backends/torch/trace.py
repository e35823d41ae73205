"""Every stage of one forward pass, for finding where two engines part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from backends.interface import Float32
from backends.torch.hidden import check, to_numpy, watch

if TYPE_CHECKING:
    from backends.torch.model import TorchModel

See = Callable[[Tensor], None]


def trace(model: TorchModel, ids: Sequence[int]) -> dict[str, Float32]:
    """Arrays [T, width] by name; see :meth:`LanguageModel.trace`."""
    check(model, [ids])
    stages: dict[str, Float32] = {}

    def keep(name: str) -> See:
        # copied to the host at once: Gemma 4 scales its layer's output in place
        return lambda states: stages.update({name: to_numpy(states[0])})

    with torch.inference_mode(), ExitStack() as hooks:
        for handle in _hooks(model, keep):
            hooks.enter_context(handle)
        row = torch.tensor([list(ids)], device=model.device)
        keep("logits")(model.head(model.hidden(row)))
    return stages


def _hooks(model: TorchModel, keep: Callable[[str], See]) -> Iterator[RemovableHandle]:
    yield watch(model, 0, keep("embedding"))
    for i, layer in enumerate(model.backbone.layers):
        projection = _mixer_projection(layer)
        yield _after(layer.input_layernorm, keep(f"layers.{i}.norm"))
        yield _before(projection, keep(f"layers.{i}.mixer"))
        yield _after(projection, keep(f"layers.{i}.o_proj"))
        yield _after(layer.mlp, keep(f"layers.{i}.mlp"))
        yield watch(model, i + 1, keep(f"layers.{i}.output"))
    yield _after(model.backbone.norm, keep("norm"))


def _mixer_projection(layer: nn.Module) -> nn.Module:
    """Attention's o_proj, or a Gated DeltaNet's out_proj."""
    linear = getattr(layer, "linear_attn", None)
    projection: nn.Module = layer.self_attn.o_proj if linear is None else linear.out_proj
    return projection


def _before(module: nn.Module, see: See) -> RemovableHandle:
    return module.register_forward_pre_hook(lambda _, inputs: see(inputs[0]))


def _after(module: nn.Module, see: See) -> RemovableHandle:
    return module.register_forward_hook(lambda _, inputs, output: see(output))
