"""Logs of inspect_ai, written by inspect_ai itself, read as sets."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from arcs.audits.readers import read
from arcs.audits.results import LabelKind
from models.errors import UserError

pytest.importorskip("inspect_ai")

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    write_eval_log,
)
from inspect_ai.log._log import EvalScorer
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.model._model_output import ChatCompletionChoice
from inspect_ai.scorer import Score

LONG = "a long prompt that inspect_ai keeps apart as an attachment " * 20


def output(text: str, reason: str = "stop", tokens: int | None = 7) -> ModelOutput:
    usage = None if tokens is None else ModelUsage(input_tokens=3, output_tokens=tokens)
    message = ChatMessageAssistant(content=text)
    choice = ChatCompletionChoice(message=message, stop_reason=reason)
    return ModelOutput(model="m", choices=[choice], usage=usage)


def sample(name: int | str, value: Any, out: ModelOutput | None = None, **more: Any) -> EvalSample:
    scores = {} if value is None else {"match": Score(value=value)}
    base: dict[str, Any] = {"id": name, "epoch": 1, "input": f"prompt {name}", "target": "t"}
    return EvalSample(**{**base, "output": out or output("yes"), "scores": scores, **more})


def log(samples: list[EvalSample] | None, **more: Any) -> EvalLog:
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00",
        task="quiz",
        dataset=EvalDataset(name="set"),
        model="hf/small",
        model_args={"dtype": "bfloat16"},
        model_generate_config=GenerateConfig(temperature=0.0),
        config=EvalConfig(),
        packages={"inspect_ai": "0.3"},
        scorers=[EvalScorer(name="match", options={"model": "judge/x", "template": "Is {a} b?"})],
    )
    given: dict[str, Any] = {
        "eval": spec,
        "status": "success",
        "plan": EvalPlan(config=GenerateConfig(max_tokens=64)),
        "samples": samples,
    }
    return EvalLog(**{**given, **more})


@pytest.fixture(params=["eval", "json"])
def write(request, tmp_path):
    def make(document: EvalLog, name: str = "log") -> Path:
        path = tmp_path / f"{name}.{request.param}"
        write_eval_log(document, str(path))
        return path

    return make


def test_samples_become_items_with_reasons_tokens_and_labels(write):
    made = log([
        sample(1, "C", output("long answer", "max_tokens", 64)),
        sample(2, "I", output("b", "stop")),
        sample(3, "N", output("c", "model_length")),
    ])  # fmt: skip
    one = read(write(made)).sets[0]
    assert (one.arm, one.task, one.n_predict) == ("hf/small", "quiz", 64)
    assert [item.item_id for item in one.items] == ["1", "2", "3"]
    assert [item.finish_reason for item in one.items] == ["max_tokens", "stop", "model_length"]
    assert [item.generated_tokens for item in one.items] == [64, 7, 7]
    assert one.values("match") == [True, False, False]
    assert one.instruments["match"].kind is LabelKind.PASS
    assert one.items[0].response == "long answer" and one.items[0].prompt == "prompt 1"
    assert one.settings["model_args.dtype"] == "bfloat16"
    assert one.settings["generate.temperature"] == "0.0"


def test_an_unknown_stop_reason_is_no_reason(write):
    one = read(write(log([sample(1, "C", output("a", "unknown"))]))).sets[0]
    assert one.items[0].finish_reason is None
    assert not one.stores_finish_reasons()


def test_epochs_are_samples_of_one_group(write):
    rows = [sample(1, "C"), sample(1, "I", epoch=2), sample(2, "C"), sample(2, "C", epoch=2)]
    one = read(write(log(rows))).sets[0]
    assert [item.item_id for item in one.items] == [
        "1 epoch 1", "2 epoch 1", "1 epoch 2", "2 epoch 2",
    ]  # fmt: skip
    assert [item.group for item in one.items] == ["1", "2", "1", "2"]
    assert one.values("match") == [True, True, False, True]


def test_a_sample_that_failed_has_no_label(write):
    from inspect_ai.log import EvalError

    fault = EvalError(message="boom", traceback="", traceback_ansi="")
    rows = [sample(1, "C"), sample(2, "I", ModelOutput(), error=fault), sample(3, None)]
    one = read(write(log(rows))).sets[0]
    assert one.values("match") == [True, None, None]
    assert one.items[1].response is None and one.items[1].finish_reason is None
    assert one.items[1].generated_tokens is None


def test_numbers_nan_partial_grades_and_parts_of_scores(write):
    rows = [
        EvalSample(id=i, epoch=1, input="p", target="t", output=output("a"), scores=scores)
        for i, scores in enumerate([
            {"n": Score(value=0.5), "g": Score(value="P"), "d": Score(value={"x": 1, "y": "calm"})},
            {"n": Score(value=float("nan")), "g": Score(value="C"), "d": Score(value={"x": 0})},
            {"n": Score(value=2), "g": Score(value="I"), "l": Score(value=[1, 2])},
        ])
    ]  # fmt: skip
    one = read(write(log(rows))).sets[0]
    assert one.values("n") == [0.5, None, 2.0]
    assert one.values("g") == [0.5, 1.0, 0.0]
    assert one.instruments["g"].kind is LabelKind.SCORE
    assert one.values("d.x") == [True, False, None]
    assert one.values("d.y") == ["calm", None, None]
    assert "l" not in one.instruments


def test_the_judge_is_the_grading_model_and_its_prompt(write):
    import hashlib

    one = read(write(log([sample(1, "C")]))).sets[0]
    assert one.instruments["match"].judge == "judge/x"
    assert one.instruments["match"].prompt_sha == hashlib.sha256(b"Is {a} b?").hexdigest()


def test_chat_prompts_and_long_texts_are_whole(write):
    chat = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content=LONG)]
    one = read(write(log([sample(1, "C", output(LONG), input=chat)]))).sets[0]
    assert one.items[0].prompt == f"system: Be brief.\n\nuser: {LONG}"
    assert one.items[0].response == LONG


def test_metrics_are_reported_with_or_without_an_interval(write):
    def score(name: str, **metrics: float) -> EvalScore:
        found = {key: EvalMetric(name=key, value=value) for key, value in metrics.items()}
        return EvalScore(name=name, scorer=name, metrics=found)

    results = EvalResults(scores=[score("match", accuracy=0.5, stderr=0.1), score("f", mean=2.0)])
    one = read(write(log([sample(1, "C")], results=results))).sets[0]
    assert [(r.name, r.value, r.has_interval) for r in one.reported] == [
        ("match accuracy", 0.5, True), ("f mean", 2.0, False),
    ]  # fmt: skip


def test_a_folder_of_logs_is_one_set_each_and_says_which_are_unfinished(write, tmp_path):
    write(log([sample(1, "C")]), "a")
    write(log([sample(1, "I")], status="cancelled"), "b")
    write(log(None, status="error"), "c")
    found = read(tmp_path)
    assert [one.values("match") for one in found.sets] == [[True], [False]]
    assert [note.split(": ", 1)[1] for note in found.skipped] == [
        "status cancelled, 1 samples logged", "status error, 0 samples logged",
    ]  # fmt: skip


def test_a_log_without_samples_is_one_line(write):
    with pytest.raises(UserError, match="hold no samples"):
        read(write(log(None)))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.eval", b"not a zip"), ("a.json", b'{"version": 2, "status": "success", "eval": 3}')],
)
def test_a_damaged_log_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="inspect_ai cannot read it") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_without_the_package_one_line_says_what_to_install(write, monkeypatch):
    path = write(log([sample(1, "C")]))
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("inspect_ai"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "inspect_ai.log", raising=False)
    with pytest.raises(UserError, match=r'pip install "threearc\[logs\]"') as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_real_evaluation_of_the_mock_model_is_read(tmp_path):
    from inspect_ai import Task
    from inspect_ai import eval as run_eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import includes

    # With usage stated: else the mock model counts tokens with an encoding it would download.
    answers = [output("Paris", tokens=1), output("no idea", "max_tokens", tokens=5)]
    task = Task(
        name="capitals",
        dataset=[Sample(id="fr", input="France?", target="Paris"),
                 Sample(id="de", input=LONG, target="Berlin")],
        scorer=includes(),
        config=GenerateConfig(max_tokens=5),
    )  # fmt: skip
    run_eval(
        task, model=get_model("mockllm/model", custom_outputs=answers), log_dir=str(tmp_path),
        display="none", max_samples=1,
    )  # fmt: skip
    one = read(tmp_path).sets[0]
    by_id = one.by_id
    assert (one.task, one.arm, one.n_predict) == ("capitals", "mockllm/model", 5)
    assert by_id["fr"].labels == {"includes": True}
    assert by_id["de"].labels == {"includes": False}
    assert by_id["de"].finish_reason == "max_tokens" and by_id["fr"].response == "Paris"
    assert by_id["de"].generated_tokens == 5
    assert by_id["de"].prompt == LONG
    assert [r.name for r in one.reported] == ["includes accuracy"] and one.reported[0].has_interval
