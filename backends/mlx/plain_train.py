"""``threearc bench train`` on MLX: mlx-lm's own trainer, as ``mlx_lm.lora`` calls it."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from backends.interface import LanguageModel
from backends.mlx.decoder import Decoder
from backends.mlx.library import load_model, open_file_limit_kept
from backends.mlx.lora import Adapter, attach, from_numpy
from backends.mlx.model import MlxModel
from backends.plain import Pass, Recipe
from models.config_fixes import mlx_overrides
from models.directory import ModelDirectory

with open_file_limit_kept():
    from mlx_lm.tuner import trainer as _trainer

trainer: Any = _trainer


class PlainMlxLm:
    """mlx-lm's model, LoRA layer, loss, batches and compiled step."""

    def __init__(self, engine: MlxModel, directory: ModelDirectory, recipe: Recipe) -> None:
        self._recipe = recipe
        config = json.loads((directory.path / "config.json").read_text())
        # lazy: its own weights are never read, so that the base is in memory once
        network, _ = load_model(directory.path, lazy=True, model_config=mlx_overrides(config))
        network.update(engine._decoder.network.parameters())
        self._decoder = Decoder.of(network)
        self._adapter: Adapter = attach(self._decoder, recipe.lora, recipe.weights)
        rows = recipe.rows
        starts = [row.response_mask.index(True) for row in rows]
        self._data = [(list(row.ids), start) for row, start in zip(rows, starts, strict=True)]
        self.reset()

    def reset(self) -> None:
        """Start weights and a fresh optimiser; mlx-lm's is without bias correction unless asked."""
        weights = self._recipe.weights
        names = self._adapter.parameters()
        self._adapter.set_parameters({name: from_numpy(weights[name]) for name in names})
        adamw = self._recipe.adamw
        self._optimizer = optim.AdamW(
            learning_rate=self._recipe.learning_rate,
            betas=[adamw.beta1, adamw.beta2],
            eps=adamw.eps,
            weight_decay=adamw.weight_decay,
            bias_correction=True,
        )

    def run(self) -> Pass:
        """One pass of mlx-lm's ``train``: it sorts the rows by length and shuffles batches."""
        recipe, seen = self._recipe, _Seen()

        def batches(*args: Any, **kwargs: Any) -> Any:
            for batch, lengths in trainer.iterate_batches(*args, **kwargs):
                # the last column is a target only; the loss counts one id after each row's end
                seen.positions += batch.shape[0] * (batch.shape[1] - 1)
                spans = np.array(lengths)
                seen.tokens += int(spans[:, 1].sum())
                last = np.minimum(spans[:, 1], batch.shape[1] - 1)
                seen.responses += int((last - np.maximum(spans[:, 0], 1) + 1).sum())
                yield batch, lengths

        np.random.seed(0)  # mlx-lm shuffles with numpy's global generator
        count = len(recipe.rows) // recipe.micro_batch_size
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            trainer.train(
                self._decoder.network,
                self._optimizer,
                self._data,
                args=trainer.TrainingArgs(
                    batch_size=recipe.micro_batch_size,
                    iters=count,
                    steps_per_report=1,
                    steps_per_save=count + 1,
                    adapter_file=Path(folder) / "adapters.safetensors",
                    grad_accumulation_steps=recipe.accumulation,
                ),
                iterate_batches=batches,
                training_callback=seen,
            )
        mx.eval(self._adapter.parameters())
        return Pass(tuple(seen.losses), seen.positions, seen.tokens, seen.responses)


class _Seen:
    """mlx-lm's callback, and what its batches held."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.positions = self.tokens = self.responses = 0

    def on_train_loss_report(self, report: dict[str, Any]) -> None:
        self.losses.append(float(report["train_loss"]))

    def on_val_loss_report(self, report: dict[str, Any]) -> None:
        del report


def plain_training(engine: LanguageModel, directory: ModelDirectory, recipe: Recipe) -> PlainMlxLm:
    """mlx-lm's training on the weights of an open engine, which keeps working beside it."""
    if not isinstance(engine, MlxModel):
        raise TypeError(f"not the mlx engine: {type(engine).__name__}")
    return PlainMlxLm(engine, directory, recipe)
