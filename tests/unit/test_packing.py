"""Laws of packed states: equal values come back, anything else is refused, damage is noticed."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from hvd_dqn.packing import pack, unpack


def _through_json(value: Any) -> Any:
    return unpack(json.loads(json.dumps(pack(value))))


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, -3, 2**127, 0.1, "text", b"\0bytes", b"", [], (), {}),
        {"a": [1, (2.5, None)], "dict": {"array": (b"x",)}, "tuple": [[]]},
        np.random.default_rng(0).bit_generator.state,
    ],
)
def test_plain_values_come_back(value: Any) -> None:
    back = _through_json(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.array([[0.1, -0.0], [np.nan, np.inf]]),
        np.zeros((0, 4), np.float32),
        np.moveaxis(np.arange(24, dtype=">i4").reshape(2, 3, 4), 0, -1),
        np.array(["ab", "c"]),
        np.random.MT19937(3).state["state"]["key"],
    ],
)
def test_arrays_come_back_bit_for_bit(array: np.ndarray) -> None:
    back = _through_json(array)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    back.flags.writeable = True


def test_scalars_of_numpy_keep_their_type() -> None:
    assert type(_through_json(np.float32(1.5))) is np.float32


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, {2}]}, r"the state\['a'\]\[1\] is a set"),
        (object(), "the state is a object"),
        ({1: 2}, "the state is a dict"),
        (np.array([None]), "the state is a ndarray"),
        ((1, 2j), r"the state\[1\] is a complex"),
    ],
)
def test_anything_else_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        pack(value)


def test_dictionaries_of_other_types_come_back_as_plain_ones() -> None:
    assert _through_json(OrderedDict(a=1)) == {"a": 1}


@pytest.mark.parametrize(
    "packed",
    [
        {"array": ["<f8", [3], "AAAA"]},
        {"array": ["<f8", [10**15], pack(np.zeros(3))["array"][2]]},
        {"array": ["<f8", [2], pack(np.zeros(3))["array"][2]]},
        {"array": ["<f8", [-3], pack(np.zeros(3))["array"][2]]},
        {"array": ["|O", [3], pack(np.zeros(3))["array"][2]]},
        {"array": ["<f8", [3]]},
        *(
            {"bytes": [1]},
            {"bytes": []},
            {"bytes": 1},
            {"bytes": ["a", "b"]},
            {"tuple": 3},
            {"dict": []},
            {"unknown": 1},
            {},
            {"dict": {}, "tuple": []},
        ),
    ],
)
def test_damage_is_noticed(packed: Any) -> None:
    """A length beyond what the text can hold takes no memory."""
    with pytest.raises((ValueError, TypeError)):
        unpack(packed)
