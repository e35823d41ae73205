"""What all arms are measured on beside the benchmark: runs of ``measure`` and ``eval`` in the run.

Each stands in ``evaluations/<name>`` as a run of its own, which is continued with this one, and can
be looked at, audited or reported like any other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcs.arc1.config import Arc1Config
from arcs.arc1.controls import Control
from arcs.arc1.profiles import MCAS_JUDGE
from arcs.arc1.training import Trained
from arcs.judging.opening import JudgeOptions
from arcs.measure.config import CHEF, JUDGED, LEXICAL, MCAS, METER, SHORT_ANSWERS, MeasureConfig
from arcs.measure.judged import TOKENS, JudgeSettings
from arcs.progress import Reporter
from arcs.runs import METRICS, PAYING, TIMING, RunDirectory
from arcs.subruns import sub_run
from backends import free_memory
from backends.memory import ITEM_BYTES, model_size
from evals.endpoint import cost
from models.errors import UserError

if TYPE_CHECKING:
    from arcs.arc1.pipeline import Prepared

FOLDER, LINKS = "evaluations", "arms"
SMALL = "small"
SMALL_BUDGETS = (64, 128, 256)
OF_CONTROLS = (METER, CHEF)
"""Evaluations that the planted effect must show in."""
BASE_FILES = ("base.jsonl", "base.labels.jsonl")
"""Of a measurement, what is the same for every seed."""
KEPT = ("n_items", "conditions", "judge", "self_verification")


@dataclass(frozen=True)
class Arm:
    """An adapter and what it is called in tables."""

    name: str
    adapter: Path
    control: bool = False


@dataclass(frozen=True)
class Asking:
    """How the judge that --judge names is asked: what may differ when a run is continued."""

    options: JudgeOptions = field(default_factory=JudgeOptions)
    """All but what the run's settings hold; the budget is for all evaluations together."""
    cache: Path | None = None
    """Of labels; None: the user's own."""

    def of(self, settings: MeasureConfig, config: Arc1Config, root: Path) -> JudgeSettings:
        """For one measurement in the run at ``root``."""
        options = JudgeOptions(max_tokens=settings.judge_max_tokens, threads=settings.judge_threads)
        if config.judge is not None:  # they are of that judge, not of what stands in for none
            options = replace(self.options, max_tokens=options.max_tokens, threads=options.threads)
        options = left_of(options, root)
        return JudgeSettings(
            settings.judge or LEXICAL, options, self.cache, config.judge_references
        )


PAID = ("budget_usd", "usd_per_million_input", "usd_per_million_output", "below_bar")
"""Options of a judge that are kept with the run; flags of a later sitting come first."""


def paying(run: Path, options: JudgeOptions | None) -> JudgeOptions:
    """The options with what of PAID was given in an earlier sitting of the run.

    Raises UserError where that cannot be read.
    """
    given, path = options or JudgeOptions(), run / PAYING
    if not path.exists():
        return given
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return JudgeOptions(**{**{name: kept[name] for name in PAID if name in kept},
                               **given.given()})  # fmt: skip
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"{path}: cannot be read; give the judge's budget and prices again"
        ) from None


def keep_paying(run: RunDirectory, options: JudgeOptions) -> None:
    """Keep PAID with the run, so that a sitting without the flags has the same cap."""
    kept = {name: value for name, value in options.given().items() if name in PAID}
    if kept:
        run.write_json(PAYING, kept)


def left_of(options: JudgeOptions, root: Path, folder: str = FOLDER) -> JudgeOptions:
    """The options with what is left of the budget, if there is one; see :func:`spent_in`."""
    if options.budget_usd is None:
        return options
    left = max(0.0, options.budget_usd - spent_in(root, options, folder))
    return replace(options, budget_usd=left)


def spent_in(root: Path, prices: JudgeOptions, folder: str = FOLDER) -> float:
    """US dollars that a judge was paid, by timing, in the runs that ``root`` and the runs within it
    have in their ``folder``: of Arc 1, the evaluations of a run and of its seeds.

    Tokens of a sitting without prices count at these.
    """
    found = 0.0
    for path in root.rglob(f"{folder}/*/{TIMING}"):
        for phase in json.loads(path.read_text(encoding="utf-8"))["phases"].values():
            counts = phase["counts"]
            unpriced = (int(counts.get(f"unpriced_{name}", 0)) for name in TOKENS)
            found += counts.get("usd", 0.0) + (cost(prices, *unpriced) or 0.0)
    return found


def owes_labels(found: Mapping[str, Any]) -> bool:
    """Whether a judge failed on an answer, or on a reference, of a finished measurement: these are
    asked again when the run is continued. ``found``: its metrics, or what Arc 1 keeps of them."""
    judge = found.get("judge") or {}
    told = [*judge.get("validity", {}).values()]
    told += [one for condition in found["conditions"].values()
             for one in condition.get("labels", {}).values()]  # fmt: skip
    return any(one["statuses"].get("error") for one in told)


def arms_of(trained: Trained, controls: Mapping[str, Control]) -> tuple[Arm, ...]:
    """All edits of the base, in the order in which they were made."""
    last = "dpo" if trained.dpo is not None else "sft" if trained.sft is not None else "adapter"
    before = [] if trained.sft_adapter is None else [Arm("sft", trained.sft_adapter)]
    planted = [Arm(name, one.adapter, control=True) for name, one in controls.items()]
    return (*before, Arm(last, trained.adapter), *planted)


def evaluate_arms(
    config: Arc1Config,
    run: RunDirectory,
    prepared: Prepared,
    arms: Sequence[Arm],
    reporter: Reporter,
    shared: Path | None = None,
    asking: Asking | None = None,
) -> dict[str, Any]:
    """Run or continue each evaluation that was asked for; what it found, by name.

    ``shared``: a run of the same settings but the seed, whose measurements of the base hold here.
    """
    links = {arm.name: _link(run.path, arm) for arm in arms} if config.evaluations else {}
    found: dict[str, Any] = {}
    for name in config.evaluations:
        wanted = [arm for arm in arms if name in OF_CONTROLS or not arm.control]
        adapters = tuple(links[arm.name] for arm in wanted)
        reporter.say(f"evaluation: {name}")
        with run.timed(f"evaluate {name}"):
            if name == SMALL:
                found[name] = _small(name, config, run, prepared, adapters, reporter)
            else:
                found[name] = _measured(
                    name, config, run, prepared, adapters, reporter, shared, asking or Asking()
                )
    return found


def _link(run: Path, arm: Arm) -> Path:
    """``arms/<name>``: conditions are called after an adapter's folder."""
    link = run.absolute() / LINKS / arm.name
    link.parent.mkdir(exist_ok=True)
    # Anew each time: in a run that was moved the old one may lead nowhere, and a copy of a run
    # can hold the adapter's files in its place.
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    link.symlink_to(os.path.relpath(arm.adapter.absolute(), link.parent))
    return link


def _measured(
    name: str,
    config: Arc1Config,
    run: RunDirectory,
    prepared: Prepared,
    adapters: tuple[Path, ...],
    reporter: Reporter,
    shared: Path | None,
    asking: Asking,
) -> dict[str, Any]:
    from arcs.measure.pipeline import run_measure

    settings = measure_config(name, config, prepared.backend, adapters)
    judging = asking.of(settings, config, run.path if shared is None else shared)
    with sub_run(run.path / FOLDER / name, "measure", settings.model_dump(mode="json")) as own:
        _take(shared, own, name)
        if not (own.path / METRICS).exists() or owes_labels(own.read_json(METRICS)):
            run_measure(settings, own, reporter, judging)
        metrics = own.read_json(METRICS)
    return {key: metrics[key] for key in KEPT if key in metrics}


def dtype_of(config: Arc1Config) -> str:
    """Of the weights in evaluations: what was asked for, else float32, in which engines and
    machines agree (training goes on in bfloat16 on a GPU)."""
    return "float32" if config.dtype == "auto" else config.dtype


def measure_config(
    name: str, config: Arc1Config, backend: str, adapters: tuple[Path, ...]
) -> MeasureConfig:
    """The settings of one measurement."""
    free = name not in (METER, SHORT_ANSWERS)
    judge: dict[str, Any] = {}
    if name in JUDGED and config.judge is None:
        judge = {"judge": MCAS_JUDGE if name == MCAS else None}
    elif name in JUDGED:
        judge = {key: getattr(config, key) for key in _OF_JUDGE}
    weak = config.allow_weak_sandbox and name == "recovery"
    return MeasureConfig.model_validate(
        {
            "instrument": name,
            "model": config.model,
            "backend": backend,
            "dtype": dtype_of(config),
            "adapters": adapters,
            "limit": config.evaluation_limit,
            "n_predict": config.evaluation_n_predict if free else None,
            **judge,
            "allow_weak_sandbox": weak,
            "allow_overlap": config.allow_overlap,
        }
    )


_OF_JUDGE = ("judge", "judge_max_tokens", "judge_threads")


def _take(shared: Path | None, own: RunDirectory, name: str) -> None:
    """Take over finished measurements of the base, once."""
    if shared is None:
        return
    for file in BASE_FILES:
        source, target = shared / FOLDER / name / file, own.path / file
        if source.exists() and not target.exists():
            part = target.with_name(f".{file}.part")
            shutil.copyfile(source, part)
            part.replace(target)


def _small(
    name: str,
    config: Arc1Config,
    run: RunDirectory,
    prepared: Prepared,
    adapters: tuple[Path, ...],
    reporter: Reporter,
) -> dict[str, Any]:
    from arcs.evaluate.config import EvalConfig
    from arcs.evaluate.pipeline import run_eval

    settings = EvalConfig.model_validate(
        {
            "benchmark": name,
            "adapters": adapters,
            "quantisations": (prepared.quantisation,),
            "n_predict": config.evaluation_n_predict or SMALL_BUDGETS,
            "limit": config.evaluation_limit,
            **{key: getattr(config, key) for key in _OF_EVAL},
        }
    )
    with sub_run(run.path / FOLDER / name, "eval", settings.model_dump(mode="json")) as own:
        if not (own.path / METRICS).exists():
            run_eval(settings, own, reporter, with_quality=False)  # arms are what is compared
        metrics = own.read_json(METRICS)
    conditions = metrics["quantisations"][prepared.quantisation]
    return {"n_items": metrics["n_items"], "conditions": conditions, "judge": None}


_OF_EVAL = (
    "model", "thinking", "prompt_style", "kv_dtype", "width", "threads", "gpu_layers",
    "allow_weak_sandbox", "allow_overlap",
)  # fmt: skip


def _require_memory(config: Arc1Config, prepared: Prepared) -> None:
    """A base that was trained in fewer bits may not fit unpacked: said before it is trained."""
    dtype = dtype_of(config)
    needed = model_size(prepared.directory).parameters * ITEM_BYTES[dtype]
    free = free_memory(prepared.backend)
    if needed > free:
        narrower = "--dtype bfloat16, " if dtype == "float32" else ""
        raise UserError(
            f"--evaluations: {prepared.directory.name} needs {needed / 1e9:.1f} GB in {dtype} and "
            f"{free / 1e9:.1f} GB are free: go on with {narrower}--evaluations small, or none"
        )


def require_evaluable(
    config: Arc1Config,
    run: RunDirectory,
    prepared: Prepared,
    reporter: Reporter,
    asking: Asking | None = None,
) -> None:
    """Raise UserError, before anything is trained, for what would stop an evaluation later."""
    from arcs.judging.opening import check_judge
    from arcs.labels import parse_judge

    if set(config.evaluations) - {SMALL} and "evaluation" not in run.manifest():  # begun now
        _require_memory(config, prepared)
    for name in config.evaluations:
        if name == SMALL:
            continue
        settings = measure_config(name, config, prepared.backend, ())
        if settings.instrument in JUDGED:
            judging = (asking or Asking()).of(settings, config, run.path)
            check_judge(parse_judge(judging.judge), reporter, judging.options)
    if config.thinking and set(config.evaluations) - {SMALL}:
        reporter.say("evaluations other than small are asked without the thinking mode")
    if config.evaluations and config.base_bits is not None:
        reporter.say("evaluations measure on the base as stored, not on its quantised weights")
