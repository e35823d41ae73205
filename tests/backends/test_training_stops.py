"""How trainings stop: rows at fault, the last good adapter, odd data; SFT and DPO, both engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from backends import open_backend
from backends.adapter_files import weights_sha256
from backends.batching import TrainingExample, plan_steps
from backends.interface import LanguageModel, LoraConfig
from backends.preferences import PreferencePair, by_length, cut_pairs, single_pairs
from backends.reference import ReferenceModel, compute_reference
from backends.training import (
    DpoConfig,
    StepRecord,
    TrainConfig,
    TrainingStopped,
    TrainResult,
    train,
    train_preferences,
)
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.preference_pairs import pair, pairs, preference_batch
from tests.support.training_data import example, examples

Tiny = Callable[..., ModelDirectory]
ENGINES = ("torch", "mlx")
METHODS = ("sft", "dpo")
VOCAB = 512
POISON = VOCAB - 1
"""An id in no row but those that a test poisons."""
CONFIG = TrainConfig(
    lora=LoraConfig(4, 8.0),
    learning_rate=1e-3,
    micro_batch_size=2,
    accumulation=2,
    checkpoint_every=100,
)
COUNT = 14
ROWS, HELD_ROWS = examples(COUNT, vocab=POISON), examples(3, seed=1000, vocab=POISON)


def without_poison(given: list[PreferencePair]) -> list[PreferencePair]:
    def clean(side: TrainingExample) -> TrainingExample:
        return replace(side, ids=tuple(min(i, POISON - 1) for i in side.ids))

    return [replace(p, chosen=clean(p.chosen), rejected=clean(p.rejected)) for p in given]


PAIRS, HELD_PAIRS = without_poison(pairs(COUNT)), without_poison(pairs(3, seed=7000))


def poisoned(side: TrainingExample) -> TrainingExample:
    return replace(side, ids=(*side.ids[:-1], POISON))


def poisoned_input(side: TrainingExample) -> TrainingExample:
    """The poison where the model reads it: before a response id."""
    return replace(side, ids=(*side.ids[:-2], POISON, side.ids[-1]))


@pytest.fixture(scope="module")
def tiny(tiny_directory: Tiny) -> ModelDirectory:
    return tiny_directory("llama", tie_word_embeddings=False, vocab=VOCAB)


def poison(model: LanguageModel) -> None:
    """Make the embedding of one id infinite: a row that holds it has no loss, the others do."""
    if model.capabilities.engine == "torch":
        import torch

        with torch.no_grad():
            model.backbone.embed_tokens.weight[POISON] = float("inf")  # type: ignore[attr-defined]
        return
    import mlx.core as mx

    embedding = model._decoder.backbone.embed_tokens  # type: ignore[attr-defined]
    values = np.array(embedding.weight)
    values[POISON] = np.inf
    embedding.weight = mx.array(values)


class Data:
    """Rows of one method, run by its training function."""

    def __init__(self, method: str, rows: Any = None, held: Any = None) -> None:
        self.method = method
        self.rows = rows if rows is not None else (ROWS if method == "sft" else PAIRS)
        self.held = held if held is not None else []

    def run(
        self,
        engine: str,
        tiny: ModelDirectory,
        out: Path,
        config: TrainConfig = CONFIG,
        *,
        prepare: Callable[[LanguageModel], None] = lambda model: None,
        on_step: Any = None,
    ) -> TrainResult:
        if self.method == "sft":
            with open_backend(engine, tiny) as model:
                prepare(model)
                return train(model, self.rows, self.held, config, directory=out, on_step=on_step)
        dpo = DpoConfig(config)
        with open_backend(engine, tiny) as model:  # not poisoned: the policy is to fail
            reference = compute_reference(
                model, ReferenceModel.base(), self.rows, self.held, dpo, file=out / "r.jsonl"
            )
        with open_backend(engine, tiny) as model:
            prepare(model)
            return train_preferences(
                model, self.rows, self.held, dpo,
                reference=reference, directory=out, on_step=on_step,
            )  # fmt: skip

    def with_bad(self, item: str) -> Data:
        """The same with one row (of a pair the rejected side) that holds the poisoned id."""
        if self.method == "sft":
            bad = [poisoned_input(r) if r.item_id == item else r for r in self.rows]
        else:
            bad = [
                replace(p, rejected=poisoned_input(p.rejected)) if p.item_id == item else p
                for p in self.rows
            ]
        return Data(self.method, bad, self.held)

    def step_items(self) -> list[tuple[str, ...]]:
        """Item ids by step (both methods draw the same order)."""
        rows = [replace(ROWS[0], item_id=row.item_id) for row in self.rows]
        plans = plan_steps(rows, epochs=1, micro_batch_size=2, accumulation=2, seed=CONFIG.seed)
        return [plan.item_ids for plan in plans]


class Enough(Exception):
    pass


def stopped(*args: Any, **options: Any) -> TrainingStopped:
    data, *rest = args
    with pytest.raises(TrainingStopped) as caught:
        data.run(*rest, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def read_last_good(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors.numpy import load_file

    return json.loads((path / "last_good.json").read_text()), load_file(
        path / "weights.safetensors"
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_no_number_names_its_row_and_keeps_the_adapter_before(
    tiny: ModelDirectory, tmp_path: Path, engine: str, method: str
) -> None:
    data = Data(method)
    item = data.step_items()[2][1]
    error = stopped(data.with_bad(item), engine, tiny, tmp_path, prepare=poison)
    assert error.items == (item,)
    assert error.step == 3
    assert f"items {item})" in str(error) and "at step 3" in str(error)
    assert "learning_rate" in str(error)
    assert error.path == tmp_path / "last_good" and str(error.path) in str(error)
    about, weights = read_last_good(error.path)
    assert about["step"] == 2 == (error.last_good.step if error.last_good else None)
    assert about["weights_sha256"] == weights_sha256(weights)
    assert about["lora"]["rank"] == 4
    # exactly what two steps of a training without the bad row give
    two = weights_after(data, engine, tiny, tmp_path / "clean", 2)
    assert about["weights_sha256"] == two
    assert '"step": 3' not in (tmp_path / "log.jsonl").read_text()


def weights_after(data: Data, engine: str, tiny: ModelDirectory, out: Path, step: int) -> str:
    """Hash of the weights after ``step`` steps."""
    models: list[LanguageModel] = []
    found: list[str] = []

    def look(record: StepRecord) -> None:
        if record.step == step:
            found.append(weights_sha256(models[0].lora_weights()))
            raise Enough

    with pytest.raises(Enough):
        data.run(engine, tiny, out, prepare=models.append, on_step=look)
    return found[0]


@pytest.mark.parametrize("method", METHODS)
def test_several_bad_rows_are_all_named(tiny: ModelDirectory, tmp_path: Path, method: str) -> None:
    data = Data(method)
    both = data.step_items()[0][:4]
    if method == "dpo":  # the batch that is judged first
        both = tuple(p.item_id for p in by_length(PAIRS)[:2])
    bad = data
    for item in both:
        bad = bad.with_bad(item)
    error = stopped(bad, "torch", tiny, tmp_path, prepare=poison)
    # those of the micro-batch that failed first: half of the step's
    assert len(error.items) == 2 and set(error.items) <= set(both)
    assert error.last_good is None and error.path is None  # not even the start was seen to work
    assert not (tmp_path / "last_good").exists()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_held_out_row_without_a_loss_is_named(
    tiny: ModelDirectory, tmp_path: Path, engine: str, method: str
) -> None:
    held = HELD_ROWS if method == "sft" else HELD_PAIRS
    item = held[1].item_id
    data = Data(method, held=held)
    bad = Data(method, data.rows, Data(method, held).with_bad(item).rows)
    error = stopped(bad, engine, tiny, tmp_path, prepare=poison)
    assert error.items == (item,) and "validation loss" in str(error)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_no_number_is_not_kept(
    tiny: ModelDirectory, tmp_path: Path, engine: str, method: str
) -> None:
    seen: list[Any] = []

    def explode(model: LanguageModel) -> None:
        real = model.apply

        def apply(rate: float, clip: float | None) -> float:
            seen.append(model.lora_weights())
            if len(seen) == 3:
                trainer = model._training()  # type: ignore[attr-defined]
                if engine == "torch":
                    next(iter(trainer._parameters.values())).grad[0, 0] = float("nan")
                else:
                    name = next(iter(trainer._gradient))
                    trainer._gradient[name] = trainer._gradient[name] * float("nan")
            norm = real(rate, clip)
            if len(seen) == 3 and engine == "torch":
                after = model.lora_weights()
                assert all(np.array_equal(after[n], seen[-1][n]) for n in after)
            return norm

        model.apply = apply  # type: ignore[method-assign]

    error = stopped(Data(method), engine, tiny, tmp_path, prepare=explode)
    assert "gradient norm became nan at step 3" in str(error)
    assert error.path is not None
    about, weights = read_last_good(error.path)
    assert about["step"] == 2
    assert weights_sha256(weights) == weights_sha256(seen[2])
    assert all(np.isfinite(value).all() for value in weights.values())
    assert '"step": 3' not in (tmp_path / "log.jsonl").read_text()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_rate_far_too_high_leaves_a_good_adapter(
    tiny: ModelDirectory, tmp_path: Path, engine: str, method: str
) -> None:
    wild = replace(CONFIG, learning_rate=1e25, max_grad_norm=None)
    error = stopped(Data(method), engine, tiny, tmp_path, wild)
    assert error.path is not None
    about, weights = read_last_good(error.path)
    assert about["step"] == error.step - 2 == 0  # step 1 made the weights that step 2 met
    assert all(np.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize("method", METHODS)
def test_a_last_step_that_breaks_the_model_keeps_the_weights_before_it(
    tiny: ModelDirectory, tmp_path: Path, method: str
) -> None:
    wild = replace(CONFIG, learning_rate=1e30, micro_batch_size=COUNT, accumulation=1)
    error = stopped(Data(method), "torch", tiny, tmp_path, wild)
    assert "loss after the update became" in str(error)
    assert error.last_good is not None and error.last_good.step == 0


@pytest.mark.parametrize(("killed", "good"), [(3, 0), (5, 2)])
def test_after_a_resume_the_last_good_adapter_comes_from_the_checkpoints(
    tiny: ModelDirectory, tmp_path: Path, killed: int, good: int
) -> None:
    """The first step after the resume fails: no loss of this process vouches for any weights."""
    config = replace(CONFIG, checkpoint_every=2, epochs=2)
    data = Data("sft")

    def kill(record: StepRecord) -> None:
        if record.step == killed:
            raise Enough

    with pytest.raises(Enough):
        data.run("torch", tiny, tmp_path, config, on_step=kill)

    def break_all(model: LanguageModel) -> None:
        import torch

        with torch.no_grad():
            model.backbone.norm.weight.fill_(float("nan"))  # type: ignore[attr-defined]

    error = stopped(data, "torch", tiny, tmp_path, config, prepare=break_all)
    assert error.step == killed
    assert error.last_good is not None and error.last_good.step == good


def test_a_margin_of_infinity_is_no_good_loss() -> None:
    """-log sigmoid(inf) is 0: a rejected response of probability 0 must not look perfect."""
    from backends.objectives import Preferences
    from backends.preference_loss import preference_terms

    given = PAIRS[:2]
    batch = preference_batch(given, {p.item_id: (-5.0, -6.0) for p in given})
    terms = preference_terms(batch, np.array([-5.0, -5.0, -np.inf, -6.0]))
    assert np.isfinite(terms.losses).all()
    objective = Preferences(cut_pairs(given, 100), cut_pairs(given, 100), DpoConfig(CONFIG), {}, {})
    assert not objective.measure([terms]).finite
    assert len(single_pairs(batch)) == 2


# Odd data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ENGINES)
def test_one_row_and_a_batch_larger_than_the_data_train(
    tiny: ModelDirectory, tmp_path: Path, engine: str, method: str
) -> None:
    """One step an epoch, its loss the mean over what there is."""
    config = replace(CONFIG, epochs=3, micro_batch_size=8, accumulation=4)
    one = Data(method, [ROWS[0]] if method == "sft" else [PAIRS[0]])
    result = one.run(engine, tiny, tmp_path / "one", config)
    assert len(result.steps) == 3
    assert result.steps[2].loss < result.steps[0].loss
    assert result.evals == ()
    few = Data(method, one.rows + (ROWS[1:3] if method == "sft" else PAIRS[1:3]))
    assert len(few.run(engine, tiny, tmp_path / "few", config).steps) == 3


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_a_response_within_max_length_are_dropped_with_a_count(
    tiny: ModelDirectory, tmp_path: Path, method: str
) -> None:
    short = replace(CONFIG, max_length=32, micro_batch_size=64, accumulation=2)
    rows: list[Any]
    if method == "sft":
        rows = [example(4, 8, seed=i) for i in range(110)] + [example(40, 60)]
    else:
        # one side is enough: nothing could be compared
        rows = [pair(4, 8, 9, seed=i) for i in range(110)] + [pair(40, 60, 50)]
    summary = Data(method, rows).run("torch", tiny, tmp_path, short).summary
    noun = "examples" if method == "sft" else "pairs"
    assert summary[f"{noun}_dropped"] == [rows[-1].item_id]
    assert summary[noun] == 110
    with pytest.raises(UserError, match=rf"1 of 51 training {noun} have no response"):
        Data(method, rows[60:]).run("torch", tiny, tmp_path / "many", short)
    with pytest.raises(UserError, match=rf"1 of 1 training {noun} .*raise (dpo_)?max_length"):
        Data(method, rows[-1:]).run("torch", tiny, tmp_path / "all", short)


def test_a_pair_that_differs_behind_max_length_only_is_dropped() -> None:
    side = example(4, 40)
    other = replace(side, ids=(*side.ids[:30], *(3 for _ in range(10))))
    same = PreferencePair(side.item_id, side, other)
    many = [pair(4, 8, 9, seed=i) for i in range(110)]
    assert cut_pairs([*many, same], 100).dropped == ()
    cut = cut_pairs([*many, same], 30)
    assert cut.dropped == (same.item_id,)
    assert cut.partly_cut == 0
    assert cut_pairs([*many, same], 35).partly_cut == 1


def test_malformed_pairs_are_named() -> None:
    good = pair(4, 8, 9)
    other = pair(4, 8, 9, seed=1)
    bad = {
        "there are no training pairs": [],
        "occurs twice": [good, good],
        "chosen and rejected are the same": [replace(good, rejected=good.chosen)],
        "different prompts": [replace(good, rejected=replace(other.rejected, item_id="x"))],
        r"rejected.*no response to train on": [
            replace(good, rejected=replace(good.rejected, response_mask=(False,) * 9))
        ],
    }
    for message, rows in bad.items():
        with pytest.raises(UserError, match=message):
            cut_pairs(rows, 32)


def test_an_id_in_both_splits_is_refused(tiny: ModelDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both a training and a held-out pair"):
        Data("dpo", PAIRS, PAIRS[:1]).run("torch", tiny, tmp_path)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_beta_that_no_training_can_have_is_refused(beta: float) -> None:
    with pytest.raises(UserError, match="beta"):
        DpoConfig(CONFIG, beta)


def test_a_reference_that_is_not_finite_names_its_pair(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    item = PAIRS[4].item_id
    bad = Data("dpo").with_bad(item).rows
    config, file = DpoConfig(CONFIG), tmp_path / "r.jsonl"
    with open_backend("torch", tiny) as model:
        poison(model)
        with pytest.raises(UserError, match=item) as caught:
            compute_reference(model, ReferenceModel.base(), bad, [], config, file=file)
    assert "reference" in str(caught.value)
