"""LoRA layers on the decoder, with peft's own layer class and our start values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from backends.interface import Float32, LoraConfig
from backends.lora import check_weights

_NAME = "default"


@dataclass(frozen=True)
class Adapter:
    """The LoRA parameters of a model, float32 whatever the base is in."""

    parameters: Mapping[str, nn.Parameter]
    """``<canonical module>.lora_A`` (rank, in) and ``.lora_B`` (out, rank), in canonical order."""

    def weights(self) -> dict[str, Float32]:
        """Return the values as float32 copies."""
        return {
            name: np.array(parameter.detach().cpu().numpy(), dtype=np.float32)
            for name, parameter in self.parameters.items()
        }

    def trainable_share(self, model: nn.Module) -> float:
        """Trainable parameters over all parameters of ``model``."""
        counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return float(sum(n for n, trained in counts if trained) / sum(n for n, _ in counts))


def attach(
    backbone: nn.Module,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    linear_modules: Mapping[str, tuple[int, int]],
) -> Adapter:
    """Replace the adapted linear layers under ``backbone`` and copy ``weights`` into them.

    peft gets full module paths inside the decoder, so that nothing in a vision or audio tower
    can match. Only the LoRA parameters require a gradient afterwards.
    """
    import peft

    modules = check_weights(config, weights, linear_modules)
    paths = [name.removeprefix("model.") for name in modules]
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            use_rslora=config.rslora,
            target_modules=paths,
            init_lora_weights=False,  # every value is overwritten below
            bias="none",
        ),
        backbone,
        adapter_name=_NAME,
    )
    parameters: dict[str, nn.Parameter] = {}
    for name, path in zip(modules, paths, strict=True):
        layer = backbone.get_submodule(path)
        for part in ("lora_A", "lora_B"):
            linear = getattr(layer, part)[_NAME].float()
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(np.array(weights[f"{name}.{part}"])))
            parameters[f"{name}.{part}"] = linear.weight
    trained = {id(parameter) for parameter in parameters.values()}
    for parameter in backbone.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return Adapter(parameters)
