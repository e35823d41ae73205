"""trl's DPOTrainer as an independent implementation of the DPO loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.adapter_files import save_adapter
from backends.interface import Batch, Float32, LoraConfig
from models.directory import ModelDirectory


def trl_loss_and_gradients(
    directory: ModelDirectory,
    lora: LoraConfig,
    policy: Mapping[str, Float32],
    reference: Mapping[str, Float32] | None,
    rows: Batch,
    beta: float,
    folder: Path,
) -> tuple[float, dict[str, Float32]]:
    """Loss (mean over pairs) and LoRA gradients of one batch, by trl's own ``compute_loss``.

    ``reference`` None: the base. trl takes the base as reference of a new adapter and, of a
    model that has one already, a frozen copy of it (its issue 1193, our B30): so the model gets
    the reference first and the policy's weights afterwards.
    """
    import peft
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    save_adapter(folder / "adapter", lora, dict(reference or policy), directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory.path, dtype=torch.float32)
    given: dict[str, Any] = {}
    if reference is None:
        written = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        given["peft_config"] = peft.LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=written["target_modules"]
        )
    else:
        model = peft.PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    trainer = DPOTrainer(
        model,
        args=DPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=2,
            beta=beta,
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        # never trained on: the batch below is ours, ids and masks
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=AutoTokenizer.from_pretrained(directory.path),
        **given,
    )
    trained = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    by_name = {_canonical(name): parameter for name, parameter in trained.items()}
    assert by_name.keys() == policy.keys()
    with torch.no_grad():
        for name, parameter in by_name.items():
            parameter.copy_(torch.from_numpy(np.array(policy[name])))
    inside = np.arange(rows.ids.shape[1]) < rows.lengths[:, None]
    loss = trainer.compute_loss(
        trainer.model.train(),
        {
            "input_ids": torch.from_numpy(rows.ids.astype(np.int64)),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "completion_mask": torch.from_numpy(rows.loss_mask.astype(np.int64)),
        },
    )
    loss.backward()
    return loss.item(), {name: p.grad.numpy().copy() for name, p in by_name.items()}


def _canonical(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".default.weight", "")
