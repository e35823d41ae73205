"""Scalars of response ids and states kept while generating, against what is read apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.special import log_softmax

from backends import open_backend
from backends.interface import HiddenPoint, LanguageModel, Prompt
from backends.llamacpp.exact import open_exact
from models.directory import ModelDirectory
from models.errors import CapabilityError

Tiny = Callable[..., ModelDirectory]

TOLERANCE = 5e-4
"""Absolute: logits of size 20 to 30, float32 sums in another order (tests/support/tolerances)."""
SEQUENCES = [tuple(range(7 + n, 47 - 3 * n)) for n in range(5)]
STARTS = [30, 12, 20, 1, 18]
STOPS = tuple(range(0, 512, 3))
"""A third of the vocabulary, so that most answers of a random model end by themselves."""


@pytest.fixture(scope="module", params=["torch", "mlx", "llamacpp"])
def model(
    tiny_directory: Tiny, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LanguageModel]:
    pytest.importorskip(
        {"torch": "torch", "mlx": "mlx.core", "llamacpp": "llama_cpp"}[request.param]
    )
    directory = tiny_directory("llama")
    if request.param == "llamacpp":
        with open_exact(directory, tmp_path_factory.mktemp("gguf"), context=256) as opened:
            yield opened
    else:
        with open_backend(request.param, directory, dtype="float32") as opened:
            yield opened


def test_scalars_are_those_of_the_logits(model: LanguageModel) -> None:
    found = model.token_statistics(SEQUENCES, STARTS)
    plain = model.logprobs(SEQUENCES, STARTS)
    for ids, start, scalars, logprobs in zip(SEQUENCES, STARTS, found, plain, strict=True):
        logits = model.logits(ids)[start - 1 : -1].astype(np.float64)
        logs = log_softmax(logits, axis=-1)
        chosen = logs[np.arange(len(logs)), list(ids[start:])]
        largest = np.sort(logits, axis=-1)[:, -2:]
        assert scalars.nll == pytest.approx(-chosen, abs=TOLERANCE)
        assert scalars.entropy == pytest.approx(-(np.exp(logs) * logs).sum(-1), abs=TOLERANCE)
        assert scalars.margin == pytest.approx(largest[:, 1] - largest[:, 0], abs=TOLERANCE)
        assert scalars.nll == pytest.approx(-logprobs, abs=1e-5)
        assert {one.dtype for one in scalars} == {np.dtype(np.float32)}


def test_the_state_kept_while_generating_is_the_one_read_afterwards(model: LanguageModel) -> None:
    prompts = [Prompt(f"p{n}", ids[: 10 + n]) for n, ids in enumerate(SEQUENCES)]
    if model.capabilities.engine == "llamacpp":
        with pytest.raises(CapabilityError, match="keep states"):
            model.generate_with_states(prompts, max_tokens=12, stop_ids=STOPS)
        return
    found = model.generate_with_states(prompts, max_tokens=4, stop_ids=STOPS)
    assert [one.completion.ids for one in found] == [
        one.ids for one in model.generate(prompts, max_tokens=4, stop_ids=STOPS)
    ]
    ended = [one for one in found if one.completion.finish_reason == "stop"]
    assert len(ended) >= 2, "the test needs answers that end by themselves"
    for one in found:
        assert (one.state is None) == (one.completion.finish_reason == "length")
    sequences = [(*one.completion.prompt_ids, *one.completion.ids[:-1]) for one in ended]
    last = [HiddenPoint(3, True)]
    read = model.hidden_states(sequences, [len(ids) - 1 for ids in sequences], last)[:, 0]
    kept = np.stack([one.state for one in ended if one.state is not None])
    assert kept == pytest.approx(read, abs=TOLERANCE)
    # not the state of any neighbour
    assert np.abs(kept - np.roll(read, 1, axis=0)).max() > 0.1
