"""From a recipe and the settings to the stages that are run, and what each has to substitute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from arcs.continuing import validated
from arcs.paper.config import OF_JUDGE, PaperConfig
from arcs.paper.recipe import Recipe, StageRecipe
from backends import default_dtype
from models.chat import ChatEncoder
from models.directory import ModelDirectory

_SAID: Mapping[str, str] = {
    "limit": "{new} items, not {old}",
    "sweep_limit": "{new} prompts at each lambda, not {old}",
    "axis_items": "{new} meter items, not {old}",
    "evaluation_limit": "{new} items of each evaluation, not {old}",
    "evaluation_n_predict": "n_predict {new} for {old} in evaluations",
    "n_predict": "n_predict {new} for {old}",
    "scales": "lambda {new} for {old}",
    "permutations": "{new} permutations for {old}",
    "random_draws": "{new} set(s) of random heads for {old}",
    "controls": "controls at the {new} lambda for {old}",
    "quantisation": "{new} for {old}",
    "quantisations": "{new} for {old}",
    "dtype": "{new} for {old}",
}
"""Settings whose change a reader must know, in words. n_predict of tasks is said row by row."""
_SAID_OF_TRAINING: Mapping[str, str] = {
    "train_limit": "{new} training records, not {old}",
    "held_out_limit": "{new} held-out records, not {old}",
    "epochs": "{new} epoch(s) for {old}",
    "batch": "batches of {new} for {old}",
    "max_length": "records cut at {new} ids for {old}",
    "pairs_limit": "{new} pairs, not {old}",
    "dpo_epochs": "{new} DPO epoch(s) for {old}",
    "dpo_batch": "DPO batches of {new} for {old}",
    "dpo_max_length": "pairs cut at {new} ids for {old}",
}
"""The same of settings that say nothing of the base."""
_OF_PAIRS = ("pairs_limit", "dpo_epochs", "dpo_batch", "dpo_max_length")
BY_ROW = ("arc1", "eval")
UNKNOWN_YET = Path("/of-an-earlier-stage")
"""Stands in settings for what an earlier stage makes, until that stage is there."""


@dataclass(frozen=True)
class Stage:
    """A run of an arc as it will be."""

    recipe: StageRecipe
    config: Any
    """As the arc's own command resolves it."""
    substituted: tuple[str, ...]
    """Those of the stage that it rests on first."""
    training: tuple[str, ...] = ()
    """Of ``substituted``, what says nothing of the base."""

    @property
    def name(self) -> str:
        """Of its folder and in the table."""
        return self.recipe.name

    def budget(self, asked: int) -> int:
        """The n_predict that stands here for one of the paper's."""
        paper = tuple(self.recipe.settings["n_predict"])
        here: tuple[int, ...] = self.config.n_predict
        return here[paper.index(asked)]


@dataclass(frozen=True)
class Plan:
    """What is run, and what is not."""

    stages: tuple[Stage, ...]
    left_out: Mapping[str, str]
    """Stage -> why it is not run."""

    def stage(self, name: str) -> Stage | None:
        """None where it is left out."""
        return next((one for one in self.stages if one.name == name), None)


def plan(config: PaperConfig, recipe: Recipe, directory: ModelDirectory, backend: str) -> Plan:
    """Every stage with its settings checked, before any of them begins.

    Raises UserError for settings that an arc refuses. ``backend``: as chosen, not ``auto``.
    """
    thinks = ChatEncoder(directory).thinking_switch
    stages: list[Stage] = []
    left_out: dict[str, str] = {}
    wanted = wanted_stages(config, recipe)
    for one in recipe.stages:
        why = _why_left_out(one, config, wanted, directory, left_out, thinks=thinks)
        if why is not None:
            left_out[one.name] = why
            continue
        made = _stage(one, config, recipe, directory, backend, thinks=thinks)
        stages.append(_resting(made, {stage.name: stage for stage in stages}))
    return Plan(tuple(stages), left_out)


def wanted_stages(config: PaperConfig, recipe: Recipe) -> frozenset[str]:
    """Stages that --only asks for, and those before them that they rest on."""
    found = {one.name for one in recipe.stages if one.part in config.only}
    for one in reversed(recipe.stages):
        if one.name in found:
            found |= {other for other in (one.adapter_of, one.source) if other is not None}
    return frozenset(found)


def _why_left_out(
    one: StageRecipe,
    config: PaperConfig,
    wanted: frozenset[str],
    directory: ModelDirectory,
    left_out: Mapping[str, str],
    *,
    thinks: bool,
) -> str | None:
    if one.name not in wanted:
        return f"left out by --only {','.join(config.only)}"
    if one.needs_judge and config.judge is None:
        return "no judge that ships passes its bar; name one with --judge"
    if one.only_thinking and not thinks:
        return f"{directory.name} has no thinking mode"
    for needed in (one.adapter_of, one.source):
        if needed is not None and needed in left_out:
            return f"it needs {needed}, which is left out ({left_out[needed]})"
    return None


def _stage(
    one: StageRecipe,
    config: PaperConfig,
    recipe: Recipe,
    directory: ModelDirectory,
    backend: str,
    *,
    thinks: bool,
) -> Stage:
    settings = dict(one.settings)
    substituted = []
    if directory.name != recipe.model:
        substituted.append(f"{directory.name} for {recipe.model}")
    quick = config.profile == "quick"
    substituted += one.quick_substituted if quick and one.quick_substituted else one.substituted
    if one.prompts is not None and config.artifacts is None:
        substituted.append("questions that ship for its prompts (--artifacts has them)")
    if settings.get("thinking") and not thinks:
        del settings["thinking"]
        substituted.append("answers without thinking")
    made = _resolved(one, settings, config, backend)
    training = one.training
    if quick:
        settings |= one.quick
        if directory.gguf is None:  # not made from a GGUF: there is no original
            settings = _without_original(settings)
        paper, made = made, _resolved(one, settings, config, backend)
        old, new = (_compared(x, directory, backend) for x in (paper, made))
        substituted += _changes(one, _SAID, old, new)
        training += tuple(_changes(one, _SAID_OF_TRAINING, old, new))
    return Stage(one, made, (*substituted, *training), training)


def _resting(stage: Stage, before: Mapping[str, Stage]) -> Stage:
    """With what the stages before it had to substitute: all of a source, of an adapter how it was
    trained."""
    earlier: tuple[str, ...] = ()
    training = stage.training
    if stage.recipe.adapter_of is not None:
        earlier = training = before[stage.recipe.adapter_of].training
    if stage.recipe.source is not None:
        earlier = before[stage.recipe.source].substituted
    return replace(
        stage,
        substituted=tuple(dict.fromkeys((*earlier, *stage.substituted))),
        training=training,
    )


def _without_original(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = settings.get("quantisations")
    return {**settings, **({"quantisations": ["q8_0"]} if found == ["original"] else {})}


def _compared(config: BaseModel, directory: ModelDirectory, backend: str) -> dict[str, Any]:
    """Resolved settings as the paper's and ours are compared; what an arc works out, worked out."""
    found = config.model_dump()
    own = "q8_0" if directory.gguf is None else "its own GGUF"
    if "accumulation" in found:
        found["batch"] = found["micro_batch_size"] * found["accumulation"]
        found["dpo_batch"] = found["dpo_micro_batch_size"] * found["dpo_accumulation"]
        if found["adapter"] is not None:  # nothing is trained
            found = {k: v for k, v in found.items() if k not in _SAID_OF_TRAINING}
        elif "dpo" not in found["method"]:
            found = {k: v for k, v in found.items() if k not in _OF_PAIRS}
        if not found["evaluations"]:
            del found["evaluation_limit"], found["evaluation_n_predict"]
        if found["quantisation"] == "auto":
            found["quantisation"] = own
    if "quantisations" in found:
        found["quantisations"] = tuple(
            own if one == "original" else one for one in found["quantisations"]
        )
    if found.get("dtype") == "auto":
        found["dtype"] = default_dtype(backend)
    return found


def _changes(
    one: StageRecipe, said: Mapping[str, str], old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[str]:
    return [
        words.format(new=_text(new[key]), old=_text(old[key]))
        for key, words in said.items()
        if key in new and new[key] != old[key] and not _said_by_row(one, key)
    ]


def _said_by_row(one: StageRecipe, key: str) -> bool:
    return key == "n_predict" and one.kind in BY_ROW


def _text(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(x if isinstance(x, str) else f"{x:g}" for x in value)
    return str(value)


def _resolved(
    one: StageRecipe, settings: Mapping[str, Any], config: PaperConfig, backend: str
) -> BaseModel:
    """The settings as the arc's own command resolves them; paths into the run come later."""
    given: dict[str, Any] = {**settings, "model": config.model}
    if one.kind == "arc1":
        from arcs.arc1.config import resolve as resolve_arc1

        # with an adapter nothing is trained; where it lies is known once it is there
        more = {"adapter": UNKNOWN_YET} if one.adapter_of else {}
        return resolve_arc1({**given, **more, "backend": backend,
                             "allow_weak_sandbox": config.allow_weak_sandbox})  # fmt: skip
    if one.kind == "eval":
        from arcs.evaluate.config import EvalConfig
        from arcs.evaluate.config import flag_of as eval_flag

        return validated(
            EvalConfig, {**given, "allow_weak_sandbox": config.allow_weak_sandbox}, eval_flag
        )
    if one.kind == "measure":
        from arcs.measure.config import parse as parse_measure

        given["backend"] = backend
        if one.prompts is not None:
            given["items"] = UNKNOWN_YET
        if one.adapter_of is not None:
            given["adapters"] = (UNKNOWN_YET,)
        if one.needs_judge:
            given |= {name: getattr(config, name) for name in OF_JUDGE}
        return parse_measure(given)
    if one.kind == "arc2":
        from arcs.arc2.config import resolve as resolve_arc2

        return resolve_arc2({**given, "backend": backend})
    if one.kind == "arc3":
        from arcs.arc3.config import parse as parse_arc3

        return parse_arc3({**given, "backend": backend})
    from arcs.falsification.config import parse as parse_falsify

    return parse_falsify({**settings, "source": UNKNOWN_YET})
