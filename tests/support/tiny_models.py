"""Complete tiny random models of all five architectures: config, weights, tokenizer, template.

Nothing is degenerate: norms, scales and embeddings are drawn so that a wrong norm, scale or
RoPE shows up in the logits. Hidden sizes are not squares, because mlx rounds Gemma 3's
embedding scale sqrt(hidden) to bfloat16 and a square hides that.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

ARCHITECTURES = ("llama", "qwen3", "qwen3_5", "gemma3", "gemma4")

GEMMA3_OF_LLAMACPP = {
    "num_hidden_layers": 7,
    "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
}
"""Overrides for a Gemma 3 that llama.cpp computes: it takes every sixth layer as global."""

PAD, BOS, EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
IDS = {"pad_token_id": PAD_ID, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TOKENIZER_TEXT = (
    "def add(a, b):\n    return a + b\n\n\nfor item in range(10):\n    print(item)\n",
    "The cook asks how long the sauce should rest before it is served with the bread.",
    "user system assistant question answer model test value number list string import",
)


def tiny_config(arch: str, vocab: int = 512, **overrides: Any) -> Any:
    """A transformers config of 3 or 4 layers; ``overrides`` are config arguments."""
    import transformers as T

    common = {"vocab_size": vocab, "tie_word_embeddings": True, "max_position_embeddings": 512}
    return getattr(T, _CLASSES[arch])(**{**common, **IDS, **_arguments(arch, vocab), **overrides})


_CLASSES = {
    "llama": "LlamaConfig",
    "qwen3": "Qwen3Config",
    "qwen3_5": "Qwen3_5TextConfig",
    "gemma3": "Gemma3TextConfig",
    "gemma4": "Gemma4TextConfig",
}


def _shape(hidden: int, layers: int, heads: int, kv_heads: int, head_dim: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }


def _rope(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **more}


def _arguments(arch: str, vocab: int) -> dict[str, Any]:
    alternating = ["sliding_attention", "full_attention"] * 2
    if arch == "llama":
        return _shape(96, 3, 6, 2, 16) | {"rope_parameters": _rope(1e5)}
    if arch == "qwen3":
        return _shape(96, 3, 4, 2, 32) | {"rope_parameters": _rope(1e6)}
    if arch == "qwen3_5":
        mrope = {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
        return _shape(96, 4, 4, 2, 32) | {
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
            "rope_parameters": _rope(1e7, partial_rotary_factor=0.25, **mrope),
        }
    if arch == "gemma3":
        ropes = {"sliding_attention": _rope(1e4), "full_attention": _rope(1e6)}
        return _shape(96, 4, 4, 1, 32) | {
            "query_pre_attn_scalar": 32,
            "sliding_window": 8,
            "layer_types": alternating,
            "rope_parameters": ropes,
        }
    return _shape(96, 4, 4, 1, 16) | {
        "vocab_size_per_layer_input": vocab,
        "global_head_dim": 32,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "sliding_window": 8,
        "final_logit_softcapping": 30.0,
        "layer_types": alternating,
    }


def randomise(model: Any, seed: int) -> None:
    """Give every parameter (and Gemma 4's layer_scalar) a value that matters."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    scalars = [(n, b) for n, b in model.named_buffers() if n.endswith("layer_scalar")]
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *scalars]:
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim >= 2:
                fan_in = float(np.prod(p.shape[1:]))
                p.copy_(noise * (0.5 if "embed" in name else 1.5 / np.sqrt(fan_in)))
            elif name.endswith("A_log"):
                p.copy_(torch.log(torch.rand(p.shape, generator=generator) * 4 + 0.05))
            elif name.endswith("layer_scalar"):
                p.copy_(0.7 + 0.5 * torch.rand(p.shape, generator=generator))
            else:
                p.add_(noise * 0.2)


def build_tiny(
    arch: str,
    out: str | Path,
    seed: int = 0,
    vocab: int = 512,
    *,
    template: str | None = CHATML,
    add_bos: bool = False,
    **overrides: Any,
) -> Path:
    """Write a complete random float32 model directory, as transformers 5 saves it.

    This is the *unprepared* form (a user's own directory); :func:`models.store.prepare`
    makes the one that all loaders read. Returns ``out``, emptied first if it exists.
    """
    import torch
    from transformers import AutoModelForCausalLM

    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    config = tiny_config(arch, vocab, **overrides)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomise(model, seed)
    model.save_pretrained(out)
    (out / "generation_config.json").write_text(json.dumps(IDS, indent=2))
    write_tokenizer(out, vocab, template=template, add_bos=add_bos)
    return out


def write_tokenizer(
    out: Path, vocab: int = 512, *, template: str | None = CHATML, add_bos: bool = False
) -> None:
    """Save a byte-level BPE tokenizer of at most ``vocab`` entries (at least 259) into ``out``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TOKENIZER_TEXT, trainer)
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD
    )
    fast.chat_template = template
    fast.save_pretrained(out)
