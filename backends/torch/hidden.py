"""Hidden states and log-probabilities of given ids: right padding, nothing kept unasked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from backends.interface import Float32, HiddenPoint, TokenStatistics
from backends.sequences import PaddedBatch, check_sequences, padded_batches, shared_prefix
from backends.torch.prefix import Prefix
from backends.torch.train import HEAD_CHUNK_ELEMENTS
from backends.torch.workers import for_each
from models.errors import UserError

if TYPE_CHECKING:
    from backends.torch.model import TorchModel

Reduce = Callable[[Tensor, Tensor], Tensor]
"""From float32 logits [T, vocab] and the ids [T] that came of them to [T, k]."""


def hidden_states(
    model: TorchModel,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[int],
    points: Sequence[HiddenPoint],
) -> Float32:
    """States [n, points, d]; see :meth:`LanguageModel.hidden_states`."""
    check(model, sequences, positions=positions)
    _check_points(points, len(model.backbone.layers))
    shape = (len(sequences), len(points), int(model.config.hidden_size))
    states = np.empty(shape, dtype=np.float32)
    shared = shared_prefix(sequences, positions, saving=model.prefix_saving)
    prefix, rest = prefix_of(model, sequences, shared)
    with _Reader(model, points) as reader:

        def read(batch: PaddedBatch) -> None:
            places = [positions[place] - shared for place in batch.places]
            states[list(batch.places)] = reader.read(prefix, batch, places)

        batches = padded_batches(rest, max_tokens=model.reading_tokens, prefix=shared)
        for_each(batches, read, model.device)
    return states


def logprobs(
    model: TorchModel, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
) -> list[Float32]:
    """One array of nats a sequence; see :meth:`LanguageModel.logprobs`."""
    return [rows[:, 0] for rows in _by_response(model, sequences, response_starts, _chosen)]


def token_statistics(
    model: TorchModel, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
) -> list[TokenStatistics]:
    """See :meth:`LanguageModel.token_statistics`."""
    found = _by_response(model, sequences, response_starts, _scalars)
    return [TokenStatistics(*np.ascontiguousarray(rows.T)) for rows in found]


def _chosen(logits: Tensor, wanted: Tensor) -> Tensor:
    """Log-probability of ``wanted`` [T] under float32 logits [T, vocab], as one column [T, 1]."""
    return -functional.cross_entropy(logits, wanted, reduction="none")[:, None]


def _scalars(logits: Tensor, wanted: Tensor) -> Tensor:
    """NLL, entropy and margin, [T, 3]."""
    logs = logits.log_softmax(-1)
    nll = -logs.gather(-1, wanted[:, None])[:, 0]
    entropy = torch.special.entr(logs.exp()).sum(-1)
    first, second = logits.topk(2).values.unbind(-1)
    return torch.stack([nll, entropy, first - second], dim=1)


def _by_response(
    model: TorchModel,
    sequences: Sequence[Sequence[int]],
    response_starts: Sequence[int],
    reduce: Reduce,
) -> list[Float32]:
    """What ``reduce`` makes of each response's logits, one [T, k] array a sequence."""
    check(model, sequences, response_starts=response_starts, first_response=1)
    found: dict[int, Float32] = {}
    # the state before a response predicts its first id
    needed = [start - 1 for start in response_starts]
    shared = shared_prefix(sequences, needed, saving=model.prefix_saving)
    prefix, rest = prefix_of(model, sequences, shared)

    def read(batch: PaddedBatch) -> None:
        starts = [response_starts[place] - shared for place in batch.places]
        values = _reduced(model, prefix, batch, starts, reduce)
        found.update(zip(batch.places, values, strict=True))

    batches = padded_batches(rest, max_tokens=model.reading_tokens, prefix=shared)
    for_each(batches, read, model.device)
    return [found[place] for place in range(len(sequences))]


def check(model: TorchModel, sequences: Sequence[Sequence[int]], **more: Any) -> None:
    """Raise UserError for sequences this model cannot read."""
    check_sequences(
        sequences,
        vocab=int(model.config.vocab_size),
        context=int(model.config.max_position_embeddings),
        **more,
    )


def prefix_of(
    model: TorchModel, sequences: Sequence[Sequence[int]], shared: int
) -> tuple[Prefix, list[Sequence[int]]]:
    """The first ``shared`` ids of all sequences, read, and what follows in each."""
    first = sequences[0][:shared] if shared else ()
    with torch.inference_mode():
        return Prefix(model, first), [ids[shared:] for ids in sequences]


def padded(batch: PaddedBatch, device: torch.device) -> Tensor:
    """Ids [b, T], to be run without a mask: nothing causal looks at padding on the right.

    A mask would cost more than it hides: attention would compute the upper triangle too.
    """
    return torch.from_numpy(batch.ids.astype(np.int64)).to(device)


def to_numpy(tensor: Tensor) -> Float32:
    """Float32 copy on the host, whatever the model's dtype."""
    return np.array(tensor.detach().float().cpu().numpy(), dtype=np.float32)


def watch(model: TorchModel, layer: int, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Show ``see`` the states [b, T, d] of a HiddenPoint's layer during forward passes."""
    layers = model.backbone.layers
    if layer == 0:  # what enters the first layer: the embedding with its scale
        return layers[0].register_forward_pre_hook(lambda _, inputs: see(inputs[0]))
    return layers[layer - 1].register_forward_hook(lambda _, inputs, output: see(output))


class _Reader:
    """States at one place a row, taken by hooks that stay while batches are read, also by several
    threads at once."""

    def __init__(self, model: TorchModel, points: Sequence[HiddenPoint]) -> None:
        self._model, self._points = model, points
        self._hooks = ExitStack()
        self._batch = threading.local()

    def __enter__(self) -> Self:
        for layer in {point.layer for point in self._points}:
            self._hooks.enter_context(watch(self._model, layer, self._keep(layer)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._hooks.close()

    def read(self, prefix: Prefix, batch: PaddedBatch, places: Sequence[int]) -> Float32:
        """States [b, points, d] at ``places``; all that outlives a layer is [b, d] of it."""
        model, mine = self._model, self._batch
        mine.rows = torch.arange(len(places), device=model.device)
        mine.columns = torch.tensor(places, device=model.device)
        mine.taken = {}
        prefix.hidden(padded(batch, model.device))
        norm, taken = model.backbone.norm, mine.taken
        states = [norm(taken[at]) if normed else taken[at] for at, normed in self._points]
        if not states:
            return np.empty((len(places), 0, int(model.config.hidden_size)), dtype=np.float32)
        return to_numpy(torch.stack(states, dim=1))

    def _keep(self, layer: int) -> Callable[[Tensor], None]:
        def keep(states: Tensor) -> None:
            # indexing copies, so that a layer that works in place cannot change it afterwards
            self._batch.taken[layer] = states[self._batch.rows, self._batch.columns]

        return keep


def _reduced(
    model: TorchModel,
    prefix: Prefix,
    batch: PaddedBatch,
    starts: Sequence[int],
    reduce: Reduce,
) -> list[Float32]:
    """Of the ids from each row's start to its end; the head sees no other row."""
    counts = [int(length) - start for length, start in zip(batch.lengths, starts, strict=True)]
    rows = torch.from_numpy(np.repeat(np.arange(len(starts)), counts)).to(model.device)
    places = [np.arange(start, n) for start, n in zip(starts, batch.lengths, strict=True)]
    columns = torch.from_numpy(np.concatenate(places)).to(model.device)
    ids = padded(batch, model.device)
    states = prefix.hidden(ids, reuse=True)[rows, columns - 1]
    size = max(1, HEAD_CHUNK_ELEMENTS // int(model.config.vocab_size))
    made = [
        reduce(model.head(part), wanted)  # float32 logits
        for part, wanted in zip(states.split(size), ids[rows, columns].split(size), strict=True)
    ]
    return np.split(to_numpy(torch.cat(made)), np.cumsum(counts)[:-1])


def _check_points(points: Sequence[HiddenPoint], n_layers: int) -> None:
    for layer, _ in points:
        if not 0 <= layer <= n_layers:
            raise UserError(
                f"no hidden state of layer {layer}: the model has layers 1 to {n_layers}, "
                "and 0 is the embedding"
            )
