"""Where h_last is read, how layers are pooled, and how sequences are batched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.heads import combined, layer_factors
from backends.interface import Head, HiddenPoint
from backends.sequences import (
    Pooling,
    Position,
    TokenSequence,
    check_sequences,
    extract,
    padded_batches,
    points_of,
    position_of,
)
from models.errors import UserError

STOP = (2,)
LAYERS, WIDTH = 6, 3


def sequence(response: Sequence[int], item: str = "a", source: str = "generated") -> TokenSequence:
    return TokenSequence(item, (5, 6, 7), tuple(response), source)  # type: ignore[arg-type]


class Recording:
    """Answers with numbers that tell sequence, position, layer and norm apart."""

    def hidden_states(self, sequences, positions, points):
        return np.array(
            [
                [[100 * len(ids) + place, layer, normed] for layer, normed in points]
                for ids, place in zip(sequences, positions, strict=True)
            ],
            dtype=np.float32,
        )


@pytest.mark.parametrize(
    ("response", "last_content", "end_of_turn"),
    [
        ([8, 9, 2], 4, 5),
        ([8, 9], 4, None),  # cut: the stop token is missing, and no other position stands in
        ([2], None, 3),
        ([], None, None),
        ([8, 2, 9], 5, None),  # a stop id inside is content, and the response did not end
    ],
)
def test_positions(response, last_content, end_of_turn) -> None:
    one = sequence(response)
    assert position_of(one, Position.LAST_CONTENT, STOP) == last_content
    assert position_of(one, Position.END_OF_TURN, STOP) == end_of_turn


def test_items_without_the_position_are_missing_and_not_filled_in() -> None:
    rows = [sequence([8, 2], "done"), sequence([8, 9], "cut"), sequence([9, 9, 2], "long")]
    found = extract(
        Recording(), rows, n_layers=LAYERS, stop_ids=STOP, position=Position.END_OF_TURN
    )  # type: ignore[arg-type]
    assert found.item_ids == ("done", "long") and found.missing == ("cut",)
    assert found.x[:, 0].tolist() == [504.0, 605.0]
    with pytest.raises(UserError, match="no response has the position end_of_turn"):
        extract(Recording(), rows[1:2], n_layers=LAYERS, stop_ids=STOP,
                position=Position.END_OF_TURN)  # type: ignore[arg-type]  # fmt: skip


def test_generated_and_retokenised_ids_are_never_mixed_and_items_come_once() -> None:
    mixed = [sequence([8], "a"), sequence([8], "b", "retokenised")]
    with pytest.raises(UserError, match="cannot be mixed"):
        extract(Recording(), mixed, n_layers=LAYERS, stop_ids=STOP)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="twice"):
        extract(Recording(), [sequence([8])] * 2, n_layers=LAYERS, stop_ids=STOP)  # type: ignore[arg-type]


def test_pooling_reads_the_layers_it_says() -> None:
    assert points_of(Pooling.H_LAST, LAYERS) == [HiddenPoint(6, True)]
    assert points_of(Pooling.MEAN_NORMED, LAYERS, 4) == [HiddenPoint(k, True) for k in (3, 4, 5, 6)]
    # the paper's variant: transformers gives only the last of the four after the norm
    assert points_of(Pooling.PAPER_MIXED, LAYERS, 4) == [
        HiddenPoint(3, False), HiddenPoint(4, False), HiddenPoint(5, False), HiddenPoint(6, True),
    ]  # fmt: skip
    assert [p.layer for p in points_of(Pooling.ALL_LAYERS, LAYERS)] == list(range(7))
    with pytest.raises(UserError, match="1 to 6, not 7"):
        points_of(Pooling.MEAN_NORMED, LAYERS, 7)


def test_pooled_rows_are_means_and_all_layers_are_kept_apart() -> None:
    row = [sequence([8, 2])]
    mixed = extract(Recording(), row, n_layers=LAYERS, stop_ids=STOP, pooling=Pooling.PAPER_MIXED)  # type: ignore[arg-type]
    assert mixed.x.tolist() == [[503.0, 4.5, 0.25]]
    every = extract(Recording(), row, n_layers=LAYERS, stop_ids=STOP, pooling=Pooling.ALL_LAYERS)  # type: ignore[arg-type]
    assert every.x.shape == (1, LAYERS + 1, WIDTH)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_batches_hold_every_sequence_once_within_their_bound(lengths, most) -> None:
    rows = [tuple(range(1, n + 1)) for n in lengths]
    seen = []
    for batch in padded_batches(rows, max_tokens=most, max_rows=8):
        assert batch.ids.size <= max(most, batch.ids.shape[1]) and len(batch.places) <= 8
        for row, place in enumerate(batch.places):
            n = batch.lengths[row]
            assert tuple(batch.ids[row, :n]) == rows[place] and not batch.ids[row, n:].any()
        seen += batch.places
    assert sorted(seen) == list(range(len(rows)))


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([()], {}, "sequence 0 is empty"),
        ([(1,), (9,)], {}, r"sequence 1 has ids outside 0\.\.8"),
        ([(1, 2, 3)], {}, "has 3 ids, the context holds 2"),
        ([(1, 2)], {"positions": [2]}, "no position 2 in 2 ids"),
        ([(1, 2)], {"positions": []}, "1 sequences but 0 positions"),
        ([(1, 2)], {"response_starts": [0], "first_response": 1}, "between 1 and 1"),
        ([(1, 2)], {"response_starts": [2]}, "a response from id 2"),
    ],
)
def test_what_no_engine_can_read_is_one_line(rows, more, message) -> None:
    with pytest.raises(UserError, match=message):
        check_sequences(rows, vocab=9, context=2, **more)


HEADS = {0: (4, 16), 1: (4, 32), 3: (2, 16)}


def test_factors_of_nested_contexts_multiply_and_ones_leave_no_trace() -> None:
    outer = layer_factors({Head(0, 1): 0.5, Head(3, 0): 2.0}, HEADS)
    inner = layer_factors({Head(0, 1): 0.5, Head(0, 2): 0.0, Head(3, 0): 0.5}, HEADS)
    product = combined([outer, inner])
    assert product[0].tolist() == [1.0, 0.25, 0.0, 1.0] and set(product) == {0}
    assert layer_factors({Head(1, 3): 1.0}, HEADS) == {}
    assert outer[0].tolist() == [1.0, 0.5, 1.0, 1.0]  # not changed by combining


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({Head(2, 0): 0.5}, "layer 2 has no attention heads; layers that have: 0-1, 3"),
        ({Head(3, 2): 0.5}, "layer 3 has heads 0 to 1, and no head 2"),
        ({Head(0, -1): 0.5}, "no head -1"),
        ({Head(0, 0): float("nan")}, "finite"),
    ],
)
def test_heads_that_do_not_exist_are_one_line(scales, message) -> None:
    with pytest.raises(UserError, match=message):
        layer_factors(scales, HEADS)
