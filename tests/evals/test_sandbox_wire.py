"""What may cross between candidate and checker."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evals.humaneval.sandbox.programs.wire import (
    ClosedError,
    RefusedError,
    pack,
    receive,
    send,
    unpack,
)

HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=12,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["int", "complex", "bytes", "dict", "set", "range", "tuple", "iterator"]
            ),
            inner,
            max_size=2,
        )
    ),
    max_leaves=10,
)


@given(VALUES)
def test_a_value_comes_back_equal_and_of_the_same_type(value: object) -> None:
    back = unpack(json.loads(json.dumps(pack(value))))
    assert back == value
    assert repr(type(back)) == repr(type(value))


@given(JSON)
@example({"complex": []})
@example({"complex": [1.0, 2.0, 3.0]})
@example({"range": []})
@example({"int": {}})
def test_any_message_gives_builtin_data_or_is_refused(message: object) -> None:
    try:
        value = unpack(message)
    except RefusedError:
        return
    assert type(value).__module__ == "builtins"


class Loud(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value", [object(), Loud(1), [Loud(1)], {1: Loud(1)}, {Loud(1): 1}, (n for n in [Loud(1)]), int]
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(RefusedError):
        pack(value)


def test_depth_is_bounded_on_both_sides() -> None:
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(RefusedError, match="too deeply"):
        pack(deep)
    with pytest.raises(RefusedError, match="too deeply"):
        unpack(deep)


def test_frames_are_bounded_on_both_sides() -> None:
    reader, writer = os.pipe()
    send(writer, {"a": 1}, 100)
    assert receive(reader, 100) == {"a": 1}
    with pytest.raises(RefusedError):
        send(writer, "x" * 200, 100)
    os.write(writer, (101).to_bytes(4, "big"))
    with pytest.raises(RefusedError):
        receive(reader, 100)
    os.write(writer, (2).to_bytes(4, "big") + b"{]")
    with pytest.raises(RefusedError, match="malformed"):
        receive(reader, 100)
    os.close(writer)
    with pytest.raises(ClosedError):
        receive(reader, 100)
    os.close(reader)


def test_a_reader_that_left_is_noticed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(ClosedError):
        send(writer, 1, 100)
    os.close(writer)
