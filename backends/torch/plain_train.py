"""``threearc bench train`` on torch: an ordinary peft + AdamW loop, as its users write it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import peft
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from backends.batching import TrainingExample
from backends.interface import LanguageModel
from backends.plain import Pass, Recipe
from backends.torch.model import DTYPES, TorchModel
from models.directory import ModelDirectory

IGNORED = -100
"""The label that transformers' loss leaves out."""


class PlainPeft:
    """transformers' model with its loss over all logits, peft's LoRA, torch's AdamW."""

    def __init__(self, engine: TorchModel, directory: ModelDirectory, recipe: Recipe) -> None:
        self._recipe, self._device = recipe, engine.device
        logging.disable_progress_bar()
        base = AutoModelForCausalLM.from_pretrained(
            directory.path, dtype=DTYPES[engine.dtype], local_files_only=True
        ).to(self._device)
        base.config.get_text_config().use_cache = False
        modules = sorted({name.rsplit(".", 1)[0] for name in recipe.weights})
        stem = "model.language_model." if hasattr(base.model, "language_model") else "model."
        paths = {name: stem + name.removeprefix("model.") for name in modules}
        config = peft.LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            lora_dropout=recipe.lora.dropout,
            use_rslora=recipe.lora.rslora,
            target_modules=list(paths.values()),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names of peft's own that are deprecated
            self._model = peft.get_peft_model(base, config)
        self._parameters: dict[str, nn.Parameter] = {}
        for name, path in paths.items():
            layer = base.get_submodule(path)
            for part in ("lora_A", "lora_B"):
                self._parameters[f"{name}.{part}"] = getattr(layer, part)["default"].weight
        self._model.train()
        self.reset()

    def reset(self) -> None:
        """Start weights and a fresh optimiser."""
        adamw = self._recipe.adamw
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(self._recipe.weights[name]))
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=self._recipe.learning_rate,
            betas=(adamw.beta1, adamw.beta2),
            eps=adamw.eps,
            weight_decay=adamw.weight_decay,
        )

    def run(self) -> Pass:
        """One pass; batches in data order, padded to their longest row."""
        recipe, losses, positions = self._recipe, [], 0
        per_step = recipe.micro_batch_size * recipe.accumulation
        for first in range(0, len(recipe.rows), per_step):
            step = recipe.rows[first : first + per_step]
            # transformers' own way of a mean over the whole step: Trainer passes this too
            items = torch.tensor(sum(sum(row.response_mask) for row in step))
            loss = 0.0
            for at in range(0, len(step), recipe.micro_batch_size):
                ids, mask, labels = _collate(step[at : at + recipe.micro_batch_size])
                positions += ids.numel()
                output = self._model(
                    input_ids=ids.to(self._device),
                    attention_mask=mask.to(self._device),
                    labels=labels.to(self._device),
                    num_items_in_batch=items.to(self._device),
                )
                output.loss.backward()
                loss += output.loss.item()
            nn.utils.clip_grad_norm_(self._parameters.values(), recipe.max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
            losses.append(loss)
        return Pass(
            losses=tuple(losses),
            positions=positions,
            tokens=sum(len(row.ids) for row in recipe.rows),
            responses=sum(sum(row.response_mask) for row in recipe.rows),
        )


def _collate(rows: Sequence[TrainingExample]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels [b, T], padded on the right."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for place, row in enumerate(rows):
        given, trained = torch.tensor(row.ids), torch.tensor(row.response_mask)
        ids[place, : len(given)], mask[place, : len(given)] = given, 1
        labels[place, : len(given)] = torch.where(trained, given, IGNORED)
    return ids, mask, labels


def plain_training(engine: LanguageModel, directory: ModelDirectory, recipe: Recipe) -> PlainPeft:
    """Peft's training of the same base, loaded a second time."""
    if not isinstance(engine, TorchModel):
        raise TypeError(f"not the torch engine: {type(engine).__name__}")
    return PlainPeft(engine, directory, recipe)
