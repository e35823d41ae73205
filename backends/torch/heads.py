"""Attention heads at the o_proj input: what they put out, and factors on it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from backends.below import Below
from backends.heads import Heads, column_factors, combined, lowest
from backends.interface import Float32, HeadOutputs
from backends.sequences import PaddedBatch, padded_batches, shared_prefix
from backends.torch.hidden import check, padded, prefix_of, to_numpy
from backends.torch.workers import for_each
from models.errors import UserError

if TYPE_CHECKING:
    from backends.torch.model import TorchModel
    from backends.torch.prefix import Prefix

Factors = dict[int, Float32]
"""Layer -> factors [heads]."""
_O_PROJ = re.compile(r"model\.layers\.(\d+)\.self_attn\.o_proj")


def attention_heads(
    linear_modules: Mapping[str, tuple[int, int]], count: int
) -> dict[int, tuple[int, int]]:
    """Layer -> (heads, head_dim), from the widths: Gemma 4's head_dim differs by layer."""
    layers = {int(match[1]): name for name in linear_modules if (match := _O_PROJ.fullmatch(name))}
    return {
        layer: (count, linear_modules[name][1] // count) for layer, name in sorted(layers.items())
    }


def o_proj(backbone: nn.Module, layer: int) -> nn.Module:
    """The module that is called, with a LoRA attached peft's wrapper: both paths read its input."""
    module: nn.Module = backbone.layers[layer].self_attn.o_proj
    return module


class Tempering:
    """Factors of nested contexts, as forward pre-hooks on o_proj. Weights are never touched."""

    def __init__(self, backbone: nn.Module, heads: Heads, below: Below[Tensor]) -> None:
        self._backbone, self._heads, self._below = backbone, heads, below
        self._stack: list[Factors] = []
        self._hooks: list[RemovableHandle] = []

    @contextmanager
    def scaled(self, factors: Factors) -> Iterator[None]:
        """Multiply ``factors`` in while the context lasts."""
        self._stack.append(factors)
        try:
            self.install()
            yield
        finally:
            self._stack = [held for held in self._stack if held is not factors]
            self.install()

    def install(self) -> None:
        """Put the factors onto the modules as they are now; nothing where the product is 1.

        Called again when a LoRA is attached: peft moves o_proj, with its hooks, inside a wrapper
        whose other path would not be scaled.
        """
        while self._hooks:
            self._hooks.pop().remove()
        self._below.scaled_from(lowest(self._stack))
        for layer, row in combined(self._stack).items():
            columns = torch.from_numpy(column_factors(row, self._heads[layer][1]))
            module = o_proj(self._backbone, layer)
            device = next(module.parameters()).device
            self._hooks.append(module.register_forward_pre_hook(_scale(columns.to(device))))


def _scale(columns: Tensor) -> Callable[[nn.Module, Any], Any]:
    """Pre-hook: a float32 product, rounded once to the model's dtype."""

    def scale(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = inputs[0]
        return ((first * columns).to(first.dtype), *inputs[1:])

    return scale


def head_outputs(
    model: TorchModel,
    sequences: Sequence[Sequence[int]],
    response_starts: Sequence[int],
    last_n: int,
) -> HeadOutputs:
    """Norms and means by head; see :meth:`LanguageModel.head_outputs`."""
    if last_n < 1:
        raise UserError(f"last_n is {last_n}: average over at least 1 token")
    check(model, sequences, response_starts=response_starts)
    tokens = tuple(
        min(last_n, len(ids) - start) for ids, start in zip(sequences, response_starts, strict=True)
    )
    heads, n = model.attention_heads(), len(sequences)
    norms = {layer: np.empty((n, count), np.float32) for layer, (count, _) in heads.items()}
    means = {layer: np.empty((n, *shape), np.float32) for layer, shape in heads.items()}
    needed = [len(ids) - count for ids, count in zip(sequences, tokens, strict=True)]
    shared = shared_prefix(sequences, needed, saving=model.prefix_saving)
    prefix, rest = prefix_of(model, sequences, shared)
    with _Reader(model, heads) as reader:

        def read(batch: PaddedBatch) -> None:
            counts = [tokens[place] for place in batch.places]
            for layer, (norm, mean) in reader.read(prefix, batch, counts).items():
                norms[layer][list(batch.places)] = to_numpy(norm)
                means[layer][list(batch.places)] = to_numpy(mean)

        batches = padded_batches(rest, max_tokens=model.reading_tokens, prefix=shared)
        for_each(batches, read, model.device)
    return HeadOutputs(
        layers=tuple(heads),
        norms=tuple(norms[layer] for layer in heads),
        means=tuple(means[layer] for layer in heads),
        tokens=tokens,
    )


class _Reader:
    """Norms and means at o_proj's input, taken by hooks that stay while batches are read, also by
    several threads at once."""

    def __init__(self, model: TorchModel, heads: Heads) -> None:
        self._model, self._heads = model, heads
        self._hooks = ExitStack()
        self._batch = threading.local()

    def __enter__(self) -> Self:
        for layer in self._heads:
            module = o_proj(self._model.backbone, layer)
            self._hooks.enter_context(module.register_forward_pre_hook(self._reduce(layer)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._hooks.close()

    def read(
        self, prefix: Prefix, batch: PaddedBatch, counts: Sequence[int]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Layer -> norms [b, heads] and means [b, heads, head_dim] over each row's last tokens."""
        device, mine = self._model.device, self._batch
        mine.columns, mine.weights = (part.to(device) for part in _window(batch, counts))
        mine.rows = torch.arange(len(counts), device=device)[:, None]
        mine.found = {}
        prefix.hidden(padded(batch, device))
        found: dict[int, tuple[Tensor, Tensor]] = mine.found
        return found

    def _reduce(self, layer: int) -> Callable[[nn.Module, Any], None]:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            mine = self._batch
            # [b, m, heads, head_dim]; the whole [b, T, heads * head_dim] is not kept
            outputs = inputs[0][mine.rows, mine.columns].float()
            outputs = outputs.unflatten(-1, self._heads[layer])
            norms = (outputs.norm(dim=-1) * mine.weights[..., None]).sum(1)
            mine.found[layer] = norms, (outputs * mine.weights[..., None, None]).sum(1)

        return see


def _window(batch: PaddedBatch, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Columns [b, m] of each row's last tokens, and weights [b, m]: 1 / count, 0 beyond it."""
    number = np.asarray(counts)[:, None]
    steps = np.arange(number.max())[None]
    columns = np.minimum(batch.lengths[:, None] - number + steps, batch.lengths[:, None] - 1)
    weights = ((steps < number) / number).astype(np.float32)
    return torch.from_numpy(columns.astype(np.int64)), torch.from_numpy(weights)
