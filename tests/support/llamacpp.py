"""Helpers of the llama.cpp tests: torch references and adapters with effect."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.directory import ModelDirectory

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def encode_chatml(directory: ModelDirectory, question: str) -> tuple[int, ...]:
    """Ids of one user turn in SmolLM2's format, the assistant's turn opened."""
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    tokenizer = _tokenizer(directory.path / "tokenizer.json")
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


@cache
def _tokenizer(path: Path) -> Any:
    """Reading SmolLM2's takes 0.1 s, and there are 164 problems."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def torch_model(directory: ModelDirectory) -> Any:
    """The directory's model in torch, float32, plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory.path, dtype=torch.float32).eval()


def torch_logits(model: Any, ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits [T, vocab] of one sequence."""
    import torch

    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor([list(ids)])).logits[0].numpy()
    return logits


def with_random_lora(model: Any, out: Path, *, size: float, seed: int = 5, **config: Any) -> Any:
    """Wrap ``model`` in plain peft, B drawn with deviation ``size``; saves it to ``out``."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)  # peft draws A
    settings = {"r": 8, "lora_alpha": 16, "target_modules": ALL_LINEAR} | config
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    adapted.save_pretrained(out)
    return adapted


def mean_kl(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean over positions of KL(reference || other), nats."""
    p, q = _log_softmax(reference), _log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
