"""Batches that MLX evaluates on several CPU streams at once are what one stream makes of them."""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from backends.interface import Head, HiddenPoint
from backends.mlx import blas_threads, hidden, streams
from backends.mlx import heads as heads_module
from backends.mlx.model import MlxModel, open_model
from backends.sequences import PaddedBatch
from models.directory import ModelDirectory
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import LENGTHS, example

Tiny = Callable[..., ModelDirectory]
MANY = [example(prompt, total, seed=seed).ids for seed in range(3) for prompt, total in LENGTHS]
BEGINNINGS = [prompt for _ in range(3) for prompt, _ in LENGTHS]
SHARED = MANY[3][:30]


@pytest.fixture
def openblas() -> Iterator[ctypes.CDLL]:
    library = blas_threads._openblas()
    if library is None:
        pytest.skip("no OpenBLAS is preloaded: run under python -m backends.blas")
    before = library.openblas_get_num_threads()
    yield library
    library.openblas_set_num_threads(before)


def read(model: MlxModel) -> list[Any]:
    n = len(model._decoder.layers)
    points = [HiddenPoint(layer, normed) for layer in range(n + 1) for normed in (False, True)]
    last = [HiddenPoint(n, True)]
    behind = [(*SHARED, *ids) for ids in MANY]  # a shared beginning is read first
    heads = model.head_outputs(MANY, BEGINNINGS, last_n=4)
    with model.tempered({Head(n - 1, 1): 0.5}):
        tempered = model.hidden_states(MANY, BEGINNINGS, last)
    return [
        model.hidden_states(MANY, BEGINNINGS, points),
        model.hidden_states(behind, [len(ids) - 1 for ids in behind], last),
        tempered,
        *model.logprobs(MANY, BEGINNINGS),
        *heads.norms,
        *heads.means,
    ]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_two_streams_read_what_one_reads_bit_for_bit(
    tiny_directory: Tiny, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (hidden, heads_module):
        monkeypatch.setattr(module, "reading_tokens", lambda: 160)
    used: set[str] = set()
    stream = mx.stream
    monkeypatch.setattr(mx, "stream", lambda s: (used.add(str(s)), stream(s))[1])
    with open_model(tiny_directory(arch)) as model:
        monkeypatch.setattr(streams, "threads", lambda: 1)
        alone = read(model)
        assert not used
        monkeypatch.setattr(streams, "threads", lambda: 2)
        together = read(model)
        assert len(used) == 2
        for one, two in zip(alone, together, strict=True):
            assert np.array_equal(one, two)
        assert not np.array_equal(together[2][:, 0], together[0][:, -1])  # tempering counts


def batches_of(count: int, rows: int = 2, width: int = 8) -> list[PaddedBatch]:
    ids = np.zeros((rows, width), np.int32)
    return [PaddedBatch((i,), ids, np.full(rows, width, np.int32)) for i in range(count)]


def test_groups_hold_what_threads_and_memory_allow() -> None:
    batches = batches_of(5)

    def sizes(workers: int, needed: int) -> list[int]:
        return [len(group) for group in streams._groups(batches, workers, lambda _: needed)]

    assert sizes(2, 1) == [2, 2, 1]
    assert sizes(1, 1) == [1] * 5
    assert sizes(2, 1 << 60) == [1] * 5  # one alone is read in any case
    order = [batch.places for group in streams._groups(batches, 2, lambda _: 1) for batch in group]
    assert order == [batch.places for batch in batches]


def test_a_long_row_is_counted_with_what_stands_before_it(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "threads", lambda: 2)
    seen: list[int] = []
    groups = streams._groups
    monkeypatch.setattr(
        streams, "_groups", lambda b, w, f: (seen.extend(map(f, b)), groups(b, w, f))[1]
    )
    with open_model(tiny_directory("llama")) as model:
        list(streams.evaluated(model._decoder, batches_of(1), lambda _: mx.zeros(1), prefix=4))
    assert seen == [4 * streams.SCORE_COPIES * 6 * 2 * 8 * 12]


def test_products_share_the_threads_and_get_them_back(
    tiny_directory: Tiny, openblas: ctypes.CDLL
) -> None:
    openblas.openblas_set_num_threads(2)
    inside: list[int] = []

    def build(batch: PaddedBatch) -> Any:
        inside.append(openblas.openblas_get_num_threads())
        if batch.places == (4,):
            raise ValueError("batch 4")
        return mx.zeros(1)

    with open_model(tiny_directory("llama")) as model:
        list(streams.evaluated(model._decoder, batches_of(3), build, prefix=0))
        assert inside == [1, 1, 2]  # the last one alone has all threads
        with pytest.raises(ValueError, match="batch 4"):
            list(streams.evaluated(model._decoder, batches_of(6), build, prefix=0))
    assert openblas.openblas_get_num_threads() == 2


def test_an_explicit_single_thread_is_respected(openblas: ctypes.CDLL) -> None:
    openblas.openblas_set_num_threads(1)
    assert blas_threads.threads() == 1


@pytest.mark.parametrize(
    ("asked", "found"), [("1", 1), ("2,1", 2), ("", 3), ("99", 3)], ids=["one", "nested", "-", "99"]
)
def test_the_reference_blas_has_the_processors_that_are_allowed(
    monkeypatch: pytest.MonkeyPatch, asked: str, found: int
) -> None:
    monkeypatch.setattr(blas_threads, "_openblas", lambda: None)
    monkeypatch.setattr(blas_threads, "blas_name", lambda: "reference BLAS (slow)")
    monkeypatch.setattr(blas_threads.sys, "platform", "linux")
    monkeypatch.setattr(blas_threads.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert blas_threads.threads() == found
    monkeypatch.setattr(blas_threads, "blas_name", lambda: "libmkl_rt.so.2")
    assert blas_threads.threads() == 1
