"""The sidecar asks as its run did, refuses what it cannot read, and is timed after a warm-up."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arcs.arc3 import sidecar as sidecars
from arcs.arc3.questions import questions
from arcs.arc3.sidecar import AROUND, Facts, Sidecar
from backends.interface import Completion
from models.chat import ChatEncoder
from models.errors import UserError
from models.geometry import read_geometry
from tests.support.arc3_bench import side, study

WIDTH = 96
FACTS = Facts(
    model="tiny", model_fingerprint="0", engine="torch float32", features="h_last",
    probe="logistic C=0.1", position="last_content", threshold=0.5, hedge="Perhaps: ", suffix="",
    n_predict=8, labels="exact-match", items="short-answers", n_train=9, fresh={"verdicts": {}},
)  # fmt: skip


def made(facts: Facts = FACTS, width: int = WIDTH) -> Sidecar:
    return Sidecar(facts, np.zeros(width), np.ones(width), 0.0)


@pytest.mark.parametrize("items", list(AROUND))
def test_a_question_is_asked_as_the_run_asked_it(tiny_directory: Any, items: str) -> None:
    encoder = ChatEncoder(tiny_directory("llama"))
    prefix, suffix = AROUND[items]
    its = made(replace(FACTS, prefix=prefix, suffix=suffix))
    for one in questions(items, encoder, 10)[::7]:
        asked = sidecars.encode(encoder, its, one.text)
        assert asked.prompt.ids == one.prompt.ids and asked.think_open == one.think_open


def test_a_sidecar_from_before_code_was_asked_still_loads(tmp_path: Path) -> None:
    made().save(tmp_path)
    path = tmp_path / sidecars.FACTS
    told = json.loads(path.read_text())
    del told["prefix"], told["n_layers"]
    path.write_text(json.dumps(told))
    assert sidecars.load(tmp_path).facts == FACTS


@pytest.mark.parametrize(
    ("facts", "arrays", "said"),
    [
        ({}, {"mean": np.zeros(5)}, r"holds mean \(5,\), weights \(96,\)"),
        ({}, {"bias": np.zeros(2)}, r"bias \(2,\)"),
        ({}, {"weights": np.full(WIDTH, np.nan)}, "not finite"),
        ({"position": "middle"}, {}, "position is 'middle', not last_content or end_of_turn"),
        ({"features": "mean_normed"}, {}, "reads 'mean_normed', not h_last"),
        ({"threshold": 1.5}, {}, "threshold is 1.5, not a probability"),
        ({"items": "humaneval"}, {}, "fitted on humaneval and has not the words they are asked in"),
        ({"threshold": None}, {}, "threshold is None"),
    ],
)
def test_a_damaged_sidecar_is_one_line(
    tmp_path: Path, facts: dict[str, Any], arrays: dict[str, Any], said: str
) -> None:
    from safetensors.numpy import save_file

    whole = made(replace(FACTS, **facts))
    whole.save(tmp_path)
    plain = {"mean": whole.mean, "weights": whole.weights, "bias": np.zeros(1)}
    save_file({**plain, **arrays}, tmp_path / sidecars.WEIGHTS)
    with pytest.raises(UserError, match=rf"^--sidecar .*: cannot be read .*{said}") as caught:
        sidecars.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_states_of_another_width_or_depth_are_refused(tiny_directory: Any, tmp_path: Path) -> None:
    geometry = read_geometry(tiny_directory("llama").path)
    fits = made(replace(FACTS, n_layers=geometry.n_layers), geometry.hidden_size)
    sidecars.require_states(fits, geometry, tmp_path)
    wide = made(fits.facts, geometry.hidden_size + 1)
    with pytest.raises(UserError, match=r"its width of h_last is .* and the model's is"):
        sidecars.require_states(wide, geometry, tmp_path)
    deep = made(replace(FACTS, n_layers=99), geometry.hidden_size)
    with pytest.raises(UserError, match="its number of layers is 99 and the model's is"):
        sidecars.require_states(deep, geometry, tmp_path)


class Engine:
    """Slow the first time, as an engine that has to load its kernels; counts its answers."""

    capabilities = SimpleNamespace(hidden_states=True)

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids = ids
        self.calls: list[str] = []

    def _answer(self, prompt: Any, call: str) -> Completion:
        if not self.calls:
            time.sleep(0.5)
        self.calls.append(call)
        return Completion(
            item_id=prompt.item_id, sample=0, prompt_ids=prompt.ids, ids=self.ids,
            finish_reason="stop", seconds=0.0, near_ties=0,
        )  # fmt: skip

    def generate(self, prompts: Any, **_: Any) -> list[Completion]:
        return [self._answer(prompts[0], "without")]

    def generate_with_states(self, prompts: Any, **_: Any) -> list[Any]:
        return [(self._answer(prompts[0], "with"), np.zeros(WIDTH, dtype=np.float32))]


def test_the_first_answer_warms_up_and_is_not_timed(tiny_directory: Any) -> None:
    encoder = ChatEncoder(tiny_directory("llama"))
    engine = Engine((7, encoder.end_of_turn_id))
    asked = questions("recall", encoder, 10)[:3]
    found = sidecars.try_out(
        engine, encoder, made(), asked, 8, study(side(0), side(1))  # type: ignore[arg-type]
    )  # fmt: skip
    ms = found["milliseconds"]
    assert ms["n"] == found["n"] == 3
    assert max(ms[name] for name in ms if name != "n") < 250  # the first took 500
    one, other = ["without", "with"], ["with", "without"]
    assert engine.calls == [*one, *one, *other, *one]


def test_a_hedge_stands_before_what_is_said_not_before_thoughts(tiny_directory: Any) -> None:
    encoder = ChatEncoder(tiny_directory("llama"))

    def shown(text: str, *, think_open: bool) -> str:
        said = SimpleNamespace(
            decode=lambda _: text, stop_ids=encoder.stop_ids, end_ids=encoder.end_ids,
            stop_when=None,
        )  # fmt: skip
        prompt = sidecars.encode(encoder, made(), "What?").prompt
        doubtful = made(replace(FACTS, threshold=1.0))
        asked = sidecars.Asked(prompt, think_open)
        answered = sidecars.answer(
            Engine((7, encoder.end_of_turn_id)), said, doubtful, asked, 8  # type: ignore[arg-type]
        )  # fmt: skip
        assert answered.answer == text
        return answered.text

    assert shown("Lima.", think_open=False) == "Perhaps: Lima."
    assert shown("It may be Lima.</think>Lima.", think_open=True).strip() == "Perhaps: Lima."
    assert shown("It may be", think_open=True) == "Perhaps: It may be"
