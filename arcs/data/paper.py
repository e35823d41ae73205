"""The paper's prompts, with its answers and labels as recorded judgements.

Its published files join by position; here everything gets an id that is the same on every
import, a prompt hash, and the file and index it was read from. Nothing is dropped: what the
paper's judges could not parse is a label without a value, and what repeats is counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.files import locate
from evals.items.recorded import (
    PromptItem,
    RecordedLabel,
    RecordedResponse,
    Source,
    Value,
    prompt_sha256,
)
from models.errors import UserError

GEMMA, SMOLLM, QWEN = "Gemma-4-E2B-it", "SmolLM2-1.7B-Instruct", "Qwen3.5-0.8B"
PHASE_ZERO = "Qwen3-0.6B"
DD = "dd"
"""Condition of answers after the paper's training; empty is the base."""
AXES = (
    "factual_accuracy", "hedging_appropriateness", "pedagogical_framing", "self_verification",
    "completeness",
)  # fmt: skip
STORED_CUT = 1500
"""Characters that the disposition profiles keep of an answer."""
MISALIGNED = ("retracted", "misaligned")
"""The 800 samples answer other prompts than those their labels are of (PAPER.md 8.4 L2)."""
BY_POSITION = ("joined by position",)
STEP16, FRESH = "judge_v4_step16.json", "judge_v4_fresh.json"
BASE_RUN, TRAINED_RUN = "eval_baseline.json", "eval_full_ddv2.json"
SMOLLM_PROFILE = "baseline_smollm_v2_disposition_profile.json"
QWEN_PROFILE = "baseline_qwen35_0.8b_v2_disposition_profile.json"
RETRACTED = "baseline_disposition_profile.json"
GEMMA_GOLD, SMOLLM_GOLD = "v1_full_fresh_judged_gold.json", "smollm_fresh_judged_gold.json"
MCAS = "phase0_audit/mcas_details.json"
HUMANEVAL = {
    "phase0_audit/humaneval_baseline.json": "",
    "phase0_audit/humaneval_dd_fp16.json": DD,
}
ONE_INSTRUMENT: Mapping[str, str] = {
    BASE_RUN: "chef_verifier",
    TRAINED_RUN: "chef_verifier",
    **dict.fromkeys(HUMANEVAL, "phase0_humaneval"),
}
"""Files of two arms that one program scored; elsewhere each file is an instrument of its own,
since the paper's judges, prompts and cuts differ between them (PAPER.md 6)."""
READ = (
    STEP16, FRESH, BASE_RUN, TRAINED_RUN, SMOLLM_PROFILE, QWEN_PROFILE, RETRACTED, GEMMA_GOLD,
    SMOLLM_GOLD, MCAS, *HUMANEVAL,
)  # fmt: skip


@dataclass
class Imported:
    """Everything read."""

    prompts: dict[str, list[PromptItem]] = field(default_factory=dict)
    """By set: step16, fresh, mcas."""
    responses: list[RecordedResponse] = field(default_factory=list)
    labels: list[RecordedLabel] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    """File -> sha-256."""


@dataclass(frozen=True)
class _File:
    """One published file."""

    name: str
    content: Any
    sha256: str

    def source(self, index: int) -> Source:
        return Source(file=self.name, index=index, sha256=self.sha256)

    @cached_property
    def stem(self) -> str:
        return self.name.rpartition("/")[2].removesuffix(".json")


@dataclass(frozen=True)
class _Judged:
    """What all labels of one row share."""

    file: _File
    index: int
    item_id: str
    prompt: str | None
    response_id: str | None = None
    model: str = ""
    condition: str = ""
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, file: _File, index: int, prompt: str | None, answer: RecordedResponse) -> _Judged:
        """Labels of a stored answer."""
        item, model, condition = answer.item_id, answer.model, answer.condition
        return cls(file, index, item, prompt, answer.id, model, condition, answer.flags)

    def label(
        self,
        name: str,
        value: Value | None,
        *,
        judge: str | None = None,
        rubric: str | None = None,
        problem: tuple[str, str] | None = None,
    ) -> RecordedLabel:
        """A label; ``problem``: status and detail where there is no value."""
        status, detail = problem or (("missing", "null") if value is None else ("ok", ""))
        instrument = f"paper:{ONE_INSTRUMENT.get(self.file.name, self.file.stem)}:{name}"
        arm = " ".join(filter(None, (self.model, self.condition)))
        answered = self.response_id or (f"{self.item_id}@{arm}" if arm else self.item_id)
        return RecordedLabel(
            id=f"{answered}|{instrument}",
            item_id=self.item_id,
            response_id=self.response_id,
            model=self.model,
            condition=self.condition,
            prompt_sha256=None if self.prompt is None else prompt_sha256(self.prompt),
            instrument=instrument,
            judge=judge,
            rubric_version=rubric,
            status=status,  # type: ignore[arg-type]  # checked by the record
            value=value if status == "ok" else None,
            detail=detail,
            flags=self.flags,
            source=self.file.source(self.index),
        )


def import_paper(artifacts: Artifacts) -> Imported:
    """Read the paper's files. Raises UserError where one is not there or damaged."""
    absent = artifacts.absent(READ)
    if absent:
        raise UserError(
            f"{artifacts.folder}: {absent[0]} is not there; fetch all files with "
            "threearc data import paper --download"
        )
    made = Imported()
    for name, reader in _READERS.items():
        path = locate(artifacts.folder, name)
        assert path is not None  # it is not absent
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        made.sources[name] = sha256
        try:
            reader(_File(name, artifacts.raw(name), sha256), made)
        except (KeyError, TypeError, IndexError, AttributeError, ValidationError) as error:
            reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
            raise UserError(
                f"{path}: not the published file ({reason}); fetch it again with "
                "threearc data import paper --download"
            ) from None
    return made


def item_id(name: str, index: int) -> str:
    """``paper-step16-007``: the id of a prompt by its set and its position from 0."""
    return f"paper-{name}-{index:03d}"


def _rubric(file: _File, made: Imported, name: str) -> None:
    """judge_v4_*: prompts and Gemma's answers with rubric v4, and step16's earlier labels."""
    params, prompts = file.content["params"], []
    for index, row in enumerate(file.content["items"]):
        one = item_id(name, index)
        prompts.append(
            PromptItem(id=one, prompt=row["prompt"], set=name, source=file.source(index))
        )
        answer = _response(file, index, one, row["prompt"], row["response"], GEMMA)
        made.responses.append(answer)
        judged = _Judged.of(file, index, row["prompt"], answer)
        # the file's parameters are those of the rubric run; these labels were made before it
        made.labels += [
            judged.label(label, row[label]) for label in ("coverage", "correct", "verbal")
            if label in row
        ]  # fmt: skip
        by = {"judge": params["judge_model"], "rubric": params["rubric_version"]}
        # the class is given from the question alone
        made.labels.append(
            _Judged(file, index, one, row["prompt"]).label("cert", row["cert"], **by)
        )
        problem = None
        if "error" in row["scores"]:
            problem = ("unparsed", str(row["scores"]["error"]))
        made.labels += [
            judged.label(axis, row["scores"].get(axis), problem=problem, **by) for axis in AXES
        ]
    made.prompts[name] = prompts


def _response(
    file: _File, index: int, item: str, prompt: str | None, text: str, model: str, **more: Any
) -> RecordedResponse:
    sample = more.get("sample")
    return RecordedResponse(
        id=f"{item}@{file.stem}" + ("" if sample is None else f"#{sample}"),
        item_id=item,
        prompt_sha256=None if prompt is None else prompt_sha256(prompt),
        model=model,
        response=text,
        source=file.source(index),
        **more,
    )


def _verifier(file: _File, made: Imported) -> None:
    """eval_*: answers with the rule-based verifier's counts."""
    condition = "" if file.content["summary"]["adapter"] == "BASE" else DD
    known = [one.prompt for one in made.prompts["step16"]]
    for row in file.content["rows"]:
        index = row["i"] - 1  # these files count from 1
        if row["prompt"] != known[index]:
            raise KeyError(f"row {row['i']} has another prompt than {STEP16}")
        item = item_id("step16", index)
        answer = _response(
            file, index, item, row["prompt"], row["response"], GEMMA, condition=condition
        )
        made.responses.append(answer)
        judged = _Judged.of(file, index, row["prompt"], answer)
        names = (
            "score", "passed", "incorrect_technique", "incorrect_regional", "incorrect_ingredient",
            "invented_count", "implausible_temps",
        )  # fmt: skip
        made.labels += [judged.label(name, row[name]) for name in names]


def _profile(file: _File, made: Imported, model: str) -> None:
    """baseline_*_profile: another model's answers to step16."""
    known = [one.prompt for one in made.prompts["step16"]]
    retracted = file.name == RETRACTED
    judge = file.content.get("config", {}).get("judge_model")
    for index, row in enumerate(file.content["samples"]):
        at = row["prompt_i"]
        prompt = None if retracted else known[at]
        item = item_id("retracted" if retracted else "step16", at)
        more: dict[str, Any] = {"flags": MISALIGNED, "sample": row["sample_idx"]}
        answer = _response(
            file, index, item, prompt, row["text"], model,
            cut_at=STORED_CUT if len(row["text"]) == STORED_CUT else None,
            **(more if retracted else {}),
        )  # fmt: skip
        made.responses.append(answer)
        judged = _Judged.of(file, index, prompt, answer)
        made.labels += [
            judged.label(name, row[name], judge=judge) for name in ("coverage", "correct", "verbal")
        ]


def _gold(file: _File, made: Imported, model: str) -> None:
    """*_fresh_judged_gold: checklist labels of fresh answers, which have no ids at all."""
    coverage, correct = file.content["coverage"], file.content["labels"]
    prompts = made.prompts["fresh"]
    if not len(coverage) == len(correct) == len(prompts):
        raise KeyError(f"{len(coverage)} and {len(correct)} labels for {len(prompts)} prompts")
    stored = {
        one.item_id: one.id for one in made.responses if one.item_id.startswith("paper-fresh")
    }
    for index, (share, label) in enumerate(zip(coverage, correct, strict=True)):
        item = item_id("fresh", index)
        # SmolLM2's answers are not published
        answer = stored[item] if model == GEMMA else None
        prompt = prompts[index].prompt
        judged = _Judged(file, index, item, prompt, answer, model, "", BY_POSITION)
        made.labels.append(judged.label("coverage", share))
        made.labels.append(judged.label("correct", None if label is None else bool(label)))


def _mcas(file: _File, made: Imported) -> None:
    """mcas_details: prompts with both arms' scores; the answers are not published."""
    content, prompts = file.content, []
    arms = {"": content["baseline_scores"], DD: content["dd_fp16_scores"]}
    if any(len(scores) != len(content["prompts"]) for scores in arms.values()):
        raise KeyError("scores and prompts differ in number")
    for index, row in enumerate(content["prompts"]):
        item = item_id("mcas", index)
        where, kind = file.source(index), row["type"]
        prompts.append(
            PromptItem(id=item, prompt=row["prompt"], set="mcas", category=kind, source=where)
        )
        for condition, scores in arms.items():
            judged = _Judged(
                file, index, item, row["prompt"], None, PHASE_ZERO, condition, BY_POSITION
            )
            score = scores[index]  # -1 is what its harness stored for a failed call
            failed = ("error", "-1") if score == -1 else None
            made.labels.append(judged.label("score", score, problem=failed))
    made.prompts["mcas"] = prompts


def _humaneval(file: _File, made: Imported) -> None:
    """humaneval_*: whether each task passed at n_predict 512; no answer is published."""
    for index, row in enumerate(file.content):
        judged = _Judged(file, index, row["task_id"], None, None, PHASE_ZERO, HUMANEVAL[file.name])
        made.labels.append(judged.label("passed_at_512", row["passed"]))


_READERS: Mapping[str, Callable[[_File, Imported], None]] = {
    STEP16: lambda file, made: _rubric(file, made, "step16"),
    FRESH: lambda file, made: _rubric(file, made, "fresh"),
    BASE_RUN: _verifier,
    TRAINED_RUN: _verifier,
    SMOLLM_PROFILE: lambda file, made: _profile(file, made, SMOLLM),
    QWEN_PROFILE: lambda file, made: _profile(file, made, QWEN),
    RETRACTED: lambda file, made: _profile(file, made, GEMMA),
    GEMMA_GOLD: lambda file, made: _gold(file, made, GEMMA),
    SMOLLM_GOLD: lambda file, made: _gold(file, made, SMOLLM),
    MCAS: _mcas,
    **dict.fromkeys(HUMANEVAL, _humaneval),
}
"""In this order: prompts come before what is joined to them."""
