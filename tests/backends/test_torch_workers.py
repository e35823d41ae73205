"""Batches that several threads read at once give what one thread reads."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backends.interface import Head, HiddenPoint
from backends.torch import hidden, workers
from backends.torch.model import TorchModel, open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.tiny_models import ARCHITECTURES
from tests.support.torch_reading import SEQUENCES, STARTS, hooks_of, layers_of

Tiny = Callable[..., ModelDirectory]
CPU = torch.device("cpu")
MANY = SEQUENCES * 4
BEGINNINGS = STARTS * 4


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def read(model: TorchModel) -> list[Any]:
    n = layers_of(model)
    points = [HiddenPoint(layer, normed) for layer in range(n + 1) for normed in (False, True)]
    heads = model.head_outputs(MANY, BEGINNINGS, last_n=4)
    return [
        model.hidden_states(MANY, BEGINNINGS, points),
        model.hidden_states(MANY, [len(ids) - 1 for ids in MANY], points),
        *model.logprobs(MANY, [max(1, start) for start in BEGINNINGS]),
        *heads.norms,
        *heads.means,
    ]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_two_threads_read_what_one_reads_bit_for_bit(
    tiny_directory: Tiny, arch: str, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread's operations run on one thread, as they do where there is one."""
    monkeypatch.setattr(TorchModel, "reading_tokens", 160)
    seen: set[int] = set()
    padded = hidden.padded
    monkeypatch.setattr(
        hidden, "padded", lambda *args: (seen.add(threading.get_ident()), padded(*args))[1]
    )
    with open_model(tiny_directory(arch), device="cpu") as model:
        before = hooks_of(model)
        threads(1)
        alone = read(model)
        assert seen == {threading.get_ident()}
        threads(2)
        with model.tempered({Head(layers_of(model) - 1, 1): 0.5}):
            tempered = model.hidden_states(MANY, BEGINNINGS, [HiddenPoint(layers_of(model), True)])
        together = read(model)
        assert len(seen) >= 3 and torch.get_num_threads() == 2 and hooks_of(model) == before
        for one, two in zip(alone, together, strict=True):
            assert np.array_equal(one, two)
        assert not np.array_equal(tempered[:, 0], together[0][:, -1])
        threads(1)
        with model.tempered({Head(layers_of(model) - 1, 1): 0.5}):
            again = model.hidden_states(MANY, BEGINNINGS, [HiddenPoint(layers_of(model), True)])
        assert np.array_equal(again, tempered)


def test_threads_are_shared_out_and_given_back(threads: Callable[[int], None]) -> None:
    threads(2)
    together = threading.Barrier(2, timeout=20)  # passed only by two at once
    shares = []

    def work(batch: int) -> None:
        together.wait()
        shares.append((batch, torch.get_num_threads(), torch.is_inference_mode_enabled()))

    workers.for_each([1, 2], work, CPU)
    assert sorted(shares) == [(1, 1, True), (2, 1, True)]
    assert torch.get_num_threads() == 2 and not torch.is_inference_mode_enabled()
    later = []  # threads of the process begin with what was set last, in whatever thread
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]
    single = []
    workers.for_each([1], lambda batch: single.append(torch.get_num_threads()), CPU)
    assert single == [2]  # one batch has all threads
    here = []
    workers.for_each([1, 2], lambda batch: here.append(threading.get_ident()), torch.device("cuda"))
    assert set(here) == {threading.get_ident()}


def test_an_error_is_raised_and_the_rest_is_left(threads: Callable[[int], None]) -> None:
    threads(2)
    begun = []

    def work(batch: int) -> None:
        begun.append(batch)
        if batch == 0:
            raise UserError("batch 0")
        time.sleep(0.02)

    with pytest.raises(UserError, match="batch 0"):
        workers.for_each(range(200), work, CPU)
    assert torch.get_num_threads() == 2 and len(begun) < 100
