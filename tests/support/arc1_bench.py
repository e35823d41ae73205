"""A small Arc 1 run of the real command: a tiny model, a few records, three problems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.command_line import call_here
from tests.support.tiny_models import build_tiny


class Bench:
    """A tiny model, a small data file, and the command line that uses them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = build_tiny("llama", root / "model", max_position_embeddings=4096)
        self.data = root / "data.jsonl"
        rows = [
            {"id": f"r{i}", "prompt": f"Say {word}.", "response": f"{word}, as you asked: {word}."}
            for i, word in enumerate(("salt", "pepper", "thyme", "butter", "flour", "wine"))
        ]
        rows.append({"id": "h0", "prompt": "Say egg.", "response": "An egg.", "split": "held_out"})
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def pairs(self) -> Path:
        """Preference pairs: seven to train on, two held out."""
        words = ("salt", "pepper", "thyme", "butter", "flour", "wine", "milk", "egg", "bread")
        rows = [
            {
                "id": f"p{i}",
                "prompt": f"Is {word} food?",
                "chosen": f"Yes, {word} is food.",
                "rejected": f"No, {word} is a number, I think.",
                "split": "train" if i < 7 else "held_out",
            }
            for i, word in enumerate(words)
        ]
        path = self.root / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def both(self, out: Path, backend: str = "torch") -> list[str]:
        """SFT, then DPO."""
        return [
            *self.fresh(out, backend), "--method", "sft+dpo", "--pairs", str(self.pairs()),
            "--dpo-micro-batch-size", "2", "--dpo-accumulation", "1", "--dpo-epochs", "3",
            "--dpo-learning-rate", "1e-3", "--reference", "sft",
        ]  # fmt: skip

    def command(self, *tail: str) -> list[str]:
        return [str(Path(sys.executable).parent / "threearc"), "arc1", *tail]

    def fresh(self, out: Path, backend: str = "torch") -> list[str]:
        return self.command(
            "--out", str(out), "--model", str(self.model), "--data", str(self.data),
            "--backend", backend, "--limit", "3", "--n-predict", "6,12", "--prompt-style", "raw",
            "--epochs", "3", "--micro-batch-size", "1", "--accumulation", "2", "--threads", "1",
            "--config", str(self.settings()), "--json",
        )  # fmt: skip

    def settings(self) -> Path:
        path = self.root / "settings.toml"
        path.write_text(
            'checkpoint_every = 1\neval_every = 3\nrank = 4\nmethod = "sft"\nevaluations = []\n'
        )
        return path

    def call_here(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command of this bench in the tests' own process; its cache is ``root/cache``."""
        return call_here(*command[1:], THREEARC_CACHE=str(self.root / "cache"))

    def environment(self, cache: Path) -> dict[str, str]:
        return {**os.environ, "THREEARC_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
