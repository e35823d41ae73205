"""Sizes of an Arc 1 run by name, and what a run may evaluate beside its benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Evaluation = Literal["small", "meter", "short-answers", "chef", "mcas", "recovery"]
EVALUATIONS: tuple[Evaluation, ...] = ("small", "meter", "chef", "mcas", "recovery")
"""Of all arms, beside the benchmark: what ``all`` means."""
NO_JUDGE: tuple[Evaluation, ...] = tuple(one for one in EVALUATIONS if one != "mcas")
"""What the larger profiles ask for where no judge is named: the embedded model fails its bar on
MCAS, so that hours of its labels would end in claims that are INVALID."""
MCAS_JUDGE = "gguf"
"""The rules cannot apply MCAS. The embedded model can, and whether a claim may rest on what it says
is measured in the run."""

PROFILES: Mapping[str, Mapping[str, Any]] = {
    # A smoke test of the whole path on real input; its verdict is nearly always INCONCLUSIVE. Its
    # sizes keep it below ten minutes on two cores, MCAS by the embedded model included.
    "quick": {
        "limit": 20, "n_predict": (128, 256), "train_limit": 56, "held_out_limit": 8, "epochs": 1,
        "rank": 16, "alpha": 32.0, "micro_batch_size": 2, "accumulation": 4, "max_length": 512,
        "pairs_limit": 24, "dpo_epochs": 1, "dpo_max_length": 512, "method": "sft+dpo",
        "evaluations": EVALUATIONS, "evaluation_limit": 3, "evaluation_n_predict": (64,),
        "judge_references": 10,
    },
    "standard": {
        "n_predict": (256, 512, 1024), "epochs": 2, "rank": 16, "alpha": 32.0,
        "micro_batch_size": 4, "accumulation": 2, "max_length": 1024, "method": "sft+dpo",
        "evaluations": NO_JUDGE, "evaluation_limit": 50, "evaluation_n_predict": (128, 256),
    },
    # The paper's recipe (PAPER.md 3.1), with response-only loss and held-out loss added.
    "paper": {
        "n_predict": (512, 1024, 2048), "epochs": 3, "rank": 64, "alpha": 128.0,
        "micro_batch_size": 4, "accumulation": 8, "max_length": 2048,
        "gradient_checkpointing": True,
        "dpo_learning_rate": 5e-6, "dpo_epochs": 2, "dpo_micro_batch_size": 1,
        "dpo_accumulation": 16, "dpo_max_length": 1280, "method": "sft+dpo",
        "evaluations": NO_JUDGE, "evaluation_n_predict": (512, 1024),
    },
}  # fmt: skip
