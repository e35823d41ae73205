"""Reading the paper's published files, each once, into checked records."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from arcs.reproduction import formats
from arcs.reproduction.files import (
    BY_NAME,
    FILES,
    SUMS,
    Mismatch,
    PublishedFile,
    check_sums,
    locate,
)
from models.errors import UserError

__all__ = ["FILES", "Artifacts", "FileAbsent", "Mismatch", "PublishedFile", "check_sums"]

Record = TypeVar("Record")
CORRECT = 0.5
"""Coverage from which on the paper counts an answer as correct."""
_NOT_AN_ARCHIVE = (
    ValueError, KeyError, EOFError, OSError, RuntimeError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What numpy and zipfile raise for bytes that are not the archive they should be."""
_FETCH = "fetch it again with: threearc reproduce --download"


class FileAbsent(Exception):
    """A published file is not in the folder; its name is the only argument."""


@dataclass(frozen=True, eq=False)
class Features:
    """A table of features and whether each row's answer counts as correct."""

    x: NDArray[np.float64]
    """[n, d]"""
    labels: NDArray[np.bool_]
    """[n]"""


@dataclass(frozen=True)
class Artifacts:
    """A folder with some or all of the published files, or a checkout of the repository.

    Every accessor raises FileAbsent where its file is not there, and UserError naming the file
    where it cannot be read as what it should be. A file with other content than the published
    one is read all the same and listed in ``changed``.
    """

    folder: Path

    def absent(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that are not in the folder."""
        return [name for name in names if locate(self.folder, name) is None]

    def complete(self) -> bool:
        """Whether every published file is there, whatever its content."""
        return not self.absent(SUMS)

    @cached_property
    def changed(self) -> frozenset[str]:
        """Names of files that are there with other content than the published ones."""
        return frozenset(m.name for m in check_sums(self.folder) if m.problem == "differs")

    def raw(self, name: str) -> Any:
        """Parsed content of a JSON file."""
        if name not in self._parsed:
            try:
                self._parsed[name] = json.loads(self._bytes(name))
            except (ValueError, RecursionError) as error:
                raise self._damaged(name, str(error)) from None
        return self._parsed[name]

    @cached_property
    def humaneval_base(self) -> list[formats.TaskResult]:
        """HumanEval results of the base model at n_predict 512."""
        return self._typed("phase0_audit/humaneval_baseline.json", list[formats.TaskResult])

    @cached_property
    def humaneval_trained(self) -> list[formats.TaskResult]:
        """HumanEval results of the trained model at n_predict 512."""
        return self._typed("phase0_audit/humaneval_dd_fp16.json", list[formats.TaskResult])

    @cached_property
    def mcas(self) -> formats.McasDetails:
        """Scores of the meta-cognition test."""
        return self._typed("phase0_audit/mcas_details.json", formats.McasDetails)

    @cached_property
    def phase_zero(self) -> formats.PhaseZeroResults:
        """Headline numbers of the first run."""
        return self._typed("phase0_audit/eval_results.json", formats.PhaseZeroResults)

    @cached_property
    def step16(self) -> formats.StepJudgements:
        """Gemma's answers to the first 100 prompts, with labels and grades."""
        return self._typed("judge_v4_step16.json", formats.StepJudgements)

    @cached_property
    def fresh(self) -> formats.FreshJudgements:
        """Gemma's answers to the 193 fresh prompts, with grades."""
        return self._typed("judge_v4_fresh.json", formats.FreshJudgements)

    @cached_property
    def smollm_profile(self) -> formats.Profile:
        """SmolLM2's answers to the first 100 prompts."""
        return self._typed("baseline_smollm_v2_disposition_profile.json", formats.Profile)

    @cached_property
    def qwen_profile(self) -> formats.Profile:
        """Qwen3.5's answers to the first 100 prompts."""
        return self._typed("baseline_qwen35_0.8b_v2_disposition_profile.json", formats.Profile)

    @cached_property
    def retracted_profile(self) -> formats.Profile:
        """The retracted 800 samples, whose answers belong to other prompts than their labels."""
        return self._typed("baseline_disposition_profile.json", formats.Profile)

    @cached_property
    def gemma_fresh_labels(self) -> formats.GoldLabels:
        """Checklist labels of Gemma's fresh answers."""
        return self._typed("v1_full_fresh_judged_gold.json", formats.GoldLabels)

    @cached_property
    def smollm_fresh_labels(self) -> formats.GoldLabels:
        """Checklist labels of SmolLM2's fresh answers."""
        return self._typed("smollm_fresh_judged_gold.json", formats.GoldLabels)

    @cached_property
    def verifier_base(self) -> formats.VerifierRun:
        """Chef answers of the base model."""
        return self._typed("eval_baseline.json", formats.VerifierRun)

    @cached_property
    def verifier_trained(self) -> formats.VerifierRun:
        """Chef answers of the model after SFT and DPO."""
        return self._typed("eval_full_ddv2.json", formats.VerifierRun)

    @cached_property
    def gemma_heads(self) -> formats.Attribution:
        """Magnitude attribution of Gemma."""
        return self._typed("path_b_attribution_gemma4.json", formats.Attribution)

    @cached_property
    def qwen_heads(self) -> formats.Attribution:
        """Magnitude attribution of Qwen3.5."""
        return self._typed("path_b_attribution_qwen35_0.8b.json", formats.Attribution)

    @cached_property
    def alpha_sweep(self) -> formats.AlphaSweep:
        """Telemetry of the mixed-logits decodes."""
        return self._typed("alpha_sweep.json", formats.AlphaSweep)

    @cached_property
    def pca_rank(self) -> formats.PcaRank:
        """Principal components of the states of base and trained model."""
        return self._typed("pca_rank.json", formats.PcaRank)

    @cached_property
    def axis_sweep(self) -> formats.AxisSweep:
        """Step 3: the probe on five axes."""
        return self._typed("disposition_probe_sweep.json", formats.AxisSweep)

    @cached_property
    def fresh_probe(self) -> formats.FreshRun:
        """Step 2: Gemma's probe on fresh prompts."""
        return self._typed("v1_full_v2.json", formats.FreshRun)

    @cached_property
    def pooled_probe(self) -> formats.PooledRun:
        """Step 4: Gemma's probe on four pooled layers."""
        return self._typed("probe_multilayer.json", formats.PooledRun)

    @cached_property
    def smollm_step16_features(self) -> NDArray[np.float32]:
        """[100, 2048] h_last of SmolLM2 on the first prompts."""
        return self._array("smollm_step16_features.npz", "X")

    @cached_property
    def smollm_step16_coverage(self) -> NDArray[np.float32]:
        """[100] checklist coverage of the same answers."""
        return self._array("smollm_step16_features.npz", "coverage")

    @cached_property
    def smollm_fresh_features(self) -> NDArray[np.float32]:
        """[193, 2048] h_last of SmolLM2 on the fresh prompts."""
        return self._array("smollm_fresh_features.npz", "X")

    def smollm_step16(self) -> Features:
        """SmolLM2's features on the first prompts; correct is coverage of at least 0.5."""
        correct = self.smollm_step16_coverage >= CORRECT
        return Features(self.smollm_step16_features.astype(np.float64), correct)

    def smollm_fresh(self) -> Features:
        """SmolLM2's features on the fresh prompts, with their published labels."""
        labels = np.array(self.smollm_fresh_labels.labels, dtype=np.bool_)
        return Features(self.smollm_fresh_features.astype(np.float64), labels)

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        """What :meth:`raw` has read."""
        return {}

    def _typed(self, name: str, kind: type[Record]) -> Record:
        content = self._bytes(name)
        try:
            return TypeAdapter(kind).validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "/".join(str(part) for part in first["loc"])
            raise self._damaged(name, f"{where}: {first['msg']}") from None

    def _array(self, name: str, key: str) -> NDArray[np.float32]:
        try:
            with np.load(io.BytesIO(self._bytes(name)), allow_pickle=False) as stored:
                values = np.asarray(stored[key], dtype=np.float32)
        except _NOT_AN_ARCHIVE as error:
            raise self._damaged(name, str(error)) from None
        if not np.isfinite(values).all():
            raise self._damaged(name, f"{key} holds values that are not finite")
        return values

    def _bytes(self, name: str) -> bytes:
        path = locate(self.folder, BY_NAME[name].name)
        if path is None:
            raise FileAbsent(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None

    def _damaged(self, name: str, why: str) -> UserError:
        reason = " ".join(why.split())
        return UserError(f"{locate(self.folder, name)}: damaged ({reason}); {_FETCH}")
