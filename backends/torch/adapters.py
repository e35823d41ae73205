"""Adapters and merged models as plain transformers and peft compute them, for proofs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from backends.adapters.contents import module_of, one_line
from backends.interface import Dtype, Float32, LoraConfig
from backends.torch.model import DTYPES, TorchModel, _exact_matmul, _load, default_device
from models.directory import ModelDirectory
from models.errors import UserError


def adapter_logits(directory: ModelDirectory, folder: Path, ids: Sequence[int]) -> Float32:
    """Float32 logits [T, vocab] with the adapter in ``folder`` loaded by ``peft`` itself."""
    import peft

    model = _plain(directory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings of peft's own that are deprecated
            adapted = peft.PeftModel.from_pretrained(model, str(folder))
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise UserError(f"peft cannot load {folder}: {one_line(error)}") from None
    return _logits(adapted.eval(), ids)


def directory_logits(directory: ModelDirectory, ids: Sequence[int]) -> Float32:
    """Float32 logits [T, vocab] of the directory, loaded by plain transformers as float32."""
    return _logits(_plain(directory), ids)


class Rounding(NamedTuple):
    """What a merge stores: the dtype, and whether every tensor or only merged ones get it."""

    dtype: Dtype
    everything: bool


def merged_logits(
    directory: ModelDirectory,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    ids: Sequence[int],
    rounding: Rounding | None,
) -> tuple[Float32, Float32 | None]:
    """Logits of a merge made in memory by torch, not by our writer.

    Returns them with W + scale B A in float32, and once more after rounding the weights as
    ``rounding`` says (computed in float32 both times); None where it says nothing.
    """
    with TorchModel(directory, dtype="float32") as model, torch.no_grad():
        merged = {}
        for name in sorted({module_of(key) for key in weights}):
            weight = model.backbone.get_submodule(name.removeprefix("model.")).weight
            a, b = (
                torch.from_numpy(np.array(weights[f"{name}.{part}"])).to(weight.device)
                for part in ("lora_A", "lora_B")
            )
            weight += config.scale * (b @ a)
            merged[name] = weight
        exact = model.logits(ids)
        if rounding is None:
            return exact, None
        state = model.model.state_dict() if rounding.everything else merged
        for tensor in state.values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(DTYPES[rounding.dtype]))
        return exact, model.logits(ids)


def _plain(directory: ModelDirectory) -> Any:
    _exact_matmul()
    return _load(directory, torch.float32).to(torch.device(default_device()))


def _logits(model: Any, ids: Sequence[int]) -> Float32:
    row = torch.tensor([list(ids)], device=next(model.parameters()).device)
    with torch.inference_mode():
        return np.asarray(model(input_ids=row).logits[0].float().cpu().numpy(), dtype=np.float32)
