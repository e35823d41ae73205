"""A small evaluation of the real command: a tiny model and an adapter that does something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from backends.interface import LoraConfig
from backends.lora import save_adapter
from backends.memory import model_size
from models.store import prepare
from tests.support.command_line import call_here
from tests.support.tiny_models import build_tiny

LORA = LoraConfig(4, 8.0, targets="all")


class Bench:
    """A tiny model, an adapter that does something, and the command line that uses them."""

    def __init__(self, root: Path, arch: str = "llama") -> None:
        self.root, self.cache = root, root / "cache"
        self.model = build_tiny(arch, root / "model", max_position_embeddings=4096)
        os.environ["THREEARC_CACHE"] = str(self.cache)
        directory = prepare(str(self.model), say=lambda _: None)
        rng = np.random.default_rng(0)
        weights = {}
        for name, (out, into) in model_size(directory).linear_modules.items():
            if "_proj" in name and "linear_attn" not in name and "per_layer" not in name:
                weights[f"{name}.lora_A"] = rng.normal(size=(4, into)).astype(np.float32) / 5
                weights[f"{name}.lora_B"] = rng.normal(size=(out, 4)).astype(np.float32) / 5
        save_adapter(root / "edit", LORA, weights, directory, {})
        shutil.copytree(root / "edit", root / "zero")
        (root / "zero" / "threearc_adapter.json").unlink()
        settings = json.loads((root / "zero" / "adapter_config.json").read_text())
        (root / "zero" / "adapter_config.json").write_text(
            json.dumps({**settings, "lora_alpha": 0})
        )
        self.weights, self.directory = weights, directory

    def command(self, *tail: str) -> list[str]:
        code = "from arcs.cli import main; main()"
        return [sys.executable, "-c", code, "eval", "humaneval", *tail]

    def fresh(self, out: str, *more: str) -> list[str]:
        return self.command(
            "--out", str(self.root / out), "--model", str(self.model), "--limit", "3",
            "--prompt-style", "raw", "--threads", "1", "--json", *more,
        )  # fmt: skip

    def call_here(self, command: list[str], cwd: Path | None = None) -> Any:
        """A command of this bench in the tests' own process."""
        return call_here(*command[3:], cwd=cwd, THREEARC_CACHE=str(self.cache))

    def run(self, command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "THREEARC_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, **more
        )

    def ids(self, out: str, arm: str, budget: int) -> dict[str, Any]:
        path = self.root / out / f"{arm}.{budget}.completions.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return {one["item_id"]: (one["ids"], one["finish_reason"]) for one in records}
