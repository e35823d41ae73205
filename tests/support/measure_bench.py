"""A tiny model with adapters, and ``threearc measure`` on it, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arcs.measure import command
from backends.lora import initial_weights, save_adapter
from backends.memory import model_size
from models.store import prepare
from tests.support.adapters import ATTENTION, live_adapter
from tests.support.hedging import LORA
from tests.support.tiny_models import build_tiny


class MeasureBench:
    """A tiny model with a cache of its own, and two adapters for it."""

    def __init__(self, root: Path, context: int = 512) -> None:
        self.root, self.runs = root, 0
        self.model = build_tiny("llama", root / "model", max_position_embeddings=context)
        self.directory = prepare(str(self.model), cache=root / "cache")
        self.live, self.zero = root / "live", root / "zero"
        live = live_adapter(self.directory, LORA, kinds=ATTENTION)
        save_adapter(self.live, LORA, live, self.directory)
        nothing = initial_weights(LORA, model_size(self.directory).linear_modules, 0)
        save_adapter(self.zero, LORA, nothing, self.directory)

    def flags(self, instrument: str, **more: Any) -> dict[str, Any]:
        return {
            "instrument": instrument,
            "model": str(self.model),
            "backend": "torch",
            "adapters": (self.live, self.zero),
            "tempers": ("L1H2=0",),
            **more,
        }

    def next_run(self) -> Path:
        self.runs += 1
        return self.root / f"run-{self.runs}"

    def run(self, flags: dict[str, Any], **more: Any) -> Path:
        out = self.next_run()
        self.start(flags, out=out, **more)
        return out

    def start(
        self,
        flags: dict[str, Any],
        *,
        out: Path | None = None,
        run: Path | None = None,
        **more: Any,
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("THREEARC_CACHE", str(self.root / "cache"))
            command.start(flags, out=out, run=run, as_json=True, **more)
