"""A planted effect for Arc 2: a model in which one head holds a disposition down.

One head of the last layer is rewritten to add a fixed direction to the residual stream: the one
that makes the words of the meter's hedged continuations less likely than those of the flat ones.
Ablating it takes that away, so the measured axis rises. Nothing else of the model is changed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from evals.items.load import built_in
from evals.items.records import MeterItem
from evals.meter import EncodedPair, choose, encode_pair
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.store import prepare
from tests.support.tiny_models import build_tiny

VARIED = 40
"""Items of the axis, from the first, on whose answers the head is built to differ."""
RIDGE = 1e-3


def quiet_tiny(root: Path, cache: Path, *, others: float = 0.1) -> ModelDirectory:
    """A tiny random model whose heads do little: in a random one they move everything at random."""
    from transformers import AutoModelForCausalLM

    source = build_tiny("llama", root / "loud", num_key_value_heads=6)
    model = AutoModelForCausalLM.from_pretrained(source)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data *= others
    shutil.copytree(source, root / "quiet")
    model.save_pretrained(root / "quiet")
    return prepare(str(root / "quiet"), cache=cache)


def plant(
    base: ModelDirectory,
    out: Path,
    cache: Path,
    *,
    head: int,
    strength: float,
    axis: str = "hedging",
    differs: bool = False,
    varied: int | None = VARIED,
    spread: float = 0.5,
) -> ModelDirectory:
    """Write a copy of ``base`` with the effect in ``head`` of the last layer, and prepare it.

    ``strength``: the direction's length, in root mean squares of the residual stream.
    ``differs``: rewrite the head's values too, so that it is larger behind flat answers than behind
    hedged ones, and with it the effect; only where no other query head shares its values.
    ``varied``: on how many items of the axis (None: all, so that it acts on all of them).
    ``spread``: its size is 1 + spread behind flat answers and 1 - spread behind hedged ones.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    encoder = ChatEncoder(base)
    items = choose(built_in("meter", MeterItem), (axis,), None)
    pairs = [encode_pair(encoder, item) for item in items]
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).eval()
    attention = model.model.layers[-1].self_attn
    size = attention.head_dim
    columns = slice(head * size, (head + 1) * size)
    with torch.no_grad():
        attention.q_proj.weight[columns] = 0  # equal attention to all that came before
        if differs:
            _vary_by_answer(model, attention, columns, pairs[:varied], spread)
        entered, residual = _seen(model, attention, pairs)
        outputs = entered[:, columns]
        reader = np.linalg.solve(
            outputs.T @ outputs + RIDGE * len(outputs) * np.eye(size),
            outputs.T @ np.ones(len(outputs)),
        )
        if differs:  # the effect is as large as the head, which is 1 in the mean
            reader = np.ones(size) / np.sqrt(size)
        length = strength * float(np.sqrt((residual**2).sum(axis=1).mean()))
        written = np.outer(length * _away_from(model, pairs), reader)
        attention.o_proj.weight[:, columns] = torch.from_numpy(written.astype(np.float32))
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(base.path).save_pretrained(out)
    return prepare(str(out), cache=cache)


def _away_from(model: Any, pairs: list[EncodedPair]) -> np.ndarray:
    """Unit direction [hidden] along which the positive continuations' ids lose."""
    weights = np.zeros(model.config.vocab_size)
    for pair in pairs:
        for sign, side in ((1.0, pair.positive), (-1.0, pair.negative)):
            ids = side.ids[side.start :]
            np.add.at(weights, list(ids), sign / len(ids))
    head = model.get_output_embeddings().weight.detach().numpy()
    direction = -(weights @ head) * model.model.norm.weight.detach().numpy()
    return np.asarray(direction / np.linalg.norm(direction))


def _vary_by_answer(
    model: Any, attention: Any, columns: slice, pairs: list[EncodedPair], spread: float
) -> None:
    """Values along one direction, larger behind a flat answer than behind a hedged one.

    Attention is equal, so the head puts out the mean value of all that came before; it is fitted
    on the means at the end of every answer.
    """
    import torch

    rows: list[np.ndarray] = []
    hook = attention.v_proj.register_forward_pre_hook(
        lambda _, given: rows.append(given[0][0].detach().numpy().mean(axis=0))
    )
    for pair in pairs:
        for side in (pair.negative, pair.positive):
            model(torch.tensor([list(side.ids)]))
    hook.remove()
    means = np.stack(rows)
    ridge = 1e-4 * float((means**2).sum(axis=1).mean())
    wanted = np.tile([1 + spread, 1 - spread], len(pairs))
    reader = means.T @ np.linalg.solve(means @ means.T + ridge * np.eye(len(means)), wanted)
    along = np.ones(columns.stop - columns.start) / np.sqrt(columns.stop - columns.start)
    attention.v_proj.weight[columns] = torch.from_numpy(np.outer(along, reader).astype(np.float32))


def _seen(model: Any, attention: Any, pairs: list[EncodedPair]) -> tuple[np.ndarray, np.ndarray]:
    """What enters o_proj, and the residual stream in front of the final norm, both [T, width]."""
    entered: list[np.ndarray] = []
    residual: list[np.ndarray] = []
    hooks = [
        attention.o_proj.register_forward_pre_hook(
            lambda _, given: entered.append(given[0][0].detach().numpy())
        ),
        model.model.norm.register_forward_pre_hook(
            lambda _, given: residual.append(given[0][0].detach().numpy())
        ),
    ]
    _forward(model, pairs)
    for hook in hooks:
        hook.remove()
    return np.concatenate(entered), np.concatenate(residual)


def _forward(model: Any, pairs: list[EncodedPair], count: int = 16) -> None:
    import torch

    for pair in pairs[:count]:
        model(torch.tensor([list(pair.negative.ids)]))
