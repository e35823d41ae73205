"""How an exported adapter is used in the program it was made for."""

from __future__ import annotations

import shlex
from pathlib import Path

from backends.adapters.proof import Target
from models.config_fixes import mlx_overrides
from models.directory import ModelDirectory
from models.errors import CapabilityError
from models.geometry import read_config


def usage(target: Target, out: Path, base: ModelDirectory) -> str:
    """A command or an expression, with the real paths."""
    model, adapter = shlex.quote(str(base.path)), shlex.quote(str(out))
    if target == "peft":
        return (
            f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base.path}"), '
            f'"{out}")'
        )
    if target == "gguf":
        file = shlex.quote(str(base.gguf)) if base.gguf is not None else "MODEL.gguf"
        return f"llama-cli -m {file} --lora {shlex.quote(str(out / 'adapter.gguf'))}"
    if not plain_mlx_lm_loads(base):
        return (
            f"mlx-lm itself does not open {base.name} as it is saved (a text-only directory of "
            "transformers 5); threearc does, and the proof was made there"
        )
    return f'python -m mlx_lm generate --model {model} --adapter-path {adapter} --prompt "Hello"'


def plain_mlx_lm_loads(base: ModelDirectory) -> bool:
    """Whether mlx-lm reads the prepared config.json without our ``model_config=``."""
    config = read_config(base.path)
    try:
        overrides = mlx_overrides(config)
    except CapabilityError:
        return False
    return all(config.get(key) == value for key, value in overrides.items())
