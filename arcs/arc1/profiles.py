"""Sizes of an Arc 1 run by name, and what a run may evaluate beside its benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Evaluation = Literal["small", "meter", "short-answers", "chef", "mcas", "recovery"]
EVALUATIONS: tuple[Evaluation, ...] = ("small", "meter", "chef", "mcas", "recovery")
"""Of all arms, beside the benchmark: what a profile asks for."""
MCAS_JUDGE = "gguf"
"""The rules cannot apply MCAS. The embedded model can, and whether a claim may rest on what it says
is measured in the run."""

PROFILES: Mapping[str, Mapping[str, Any]] = {
    # A smoke test of the whole path on real input; its verdict is nearly always INCONCLUSIVE.
    "quick": {
        "limit": 20, "n_predict": (128, 256, 512), "train_limit": 56, "epochs": 1,
        "rank": 16, "alpha": 32.0, "micro_batch_size": 2, "accumulation": 4, "max_length": 512,
        "pairs_limit": 24, "dpo_epochs": 1, "dpo_max_length": 512, "method": "sft+dpo",
        "evaluations": EVALUATIONS, "evaluation_limit": 3, "evaluation_n_predict": (96,),
        "judge_references": 12,
    },
    "standard": {
        "n_predict": (256, 512, 1024), "epochs": 2, "rank": 16, "alpha": 32.0,
        "micro_batch_size": 4, "accumulation": 2, "max_length": 1024, "method": "sft+dpo",
        "evaluations": EVALUATIONS, "evaluation_limit": 50, "evaluation_n_predict": (128, 256),
    },
    # The paper's recipe (PAPER.md 3.1), with response-only loss and held-out loss added.
    "paper": {
        "n_predict": (512, 1024, 2048), "epochs": 3, "rank": 64, "alpha": 128.0,
        "micro_batch_size": 4, "accumulation": 8, "max_length": 2048,
        "gradient_checkpointing": True,
        "dpo_learning_rate": 5e-6, "dpo_epochs": 2, "dpo_micro_batch_size": 1,
        "dpo_accumulation": 16, "dpo_max_length": 1280, "method": "sft+dpo",
        "evaluations": EVALUATIONS, "evaluation_n_predict": (512, 1024),
    },
}  # fmt: skip
