"""Bits of numpy's arrays and torch's tensors alike: distances against exact integers, digests, kinds of difference."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinrun.inspect.bits import array_bits, bits_digest, bits_of, difference, rows_digest, unequal

# Name, bits, bits of the exponent: from these alone the test says what a number is.
FORMATS = {"float16": (16, 5), "bfloat16": (16, 8), "float32": (32, 8), "float64": (64, 11)}
SIGNED = {16: torch.int16, 32: torch.int32, 64: torch.int64}


def tensor_of(words: list[int], name: str) -> torch.Tensor:
    width = FORMATS[name][0]
    raw = np.array(words, dtype=f"uint{width}")
    return torch.from_numpy(raw.view(f"int{width}").copy()).view(getattr(torch, name))


def rank(word: int, name: str) -> int | None:
    """The place of a finite number among all of its type, 0 for both zeros; None for infinities and NaNs."""
    width, exponent = FORMATS[name]
    magnitude = word & ((1 << (width - 1)) - 1)
    if magnitude >= ((1 << exponent) - 1) << (width - 1 - exponent):
        return None
    return -magnitude if word >> (width - 1) else magnitude


@st.composite
def pairs(draw: Any) -> tuple[str, list[int], list[int]]:
    name = draw(st.sampled_from(sorted(FORMATS)))
    width, exponent = FORMATS[name]
    infinity = ((1 << exponent) - 1) << (width - 1 - exponent)
    sign = 1 << (width - 1)
    special = st.sampled_from([0, sign, 1, sign | 1, infinity, sign | infinity, infinity + 1, infinity - 1])
    word = st.one_of(special, st.integers(0, (1 << width) - 1))
    first = draw(st.lists(word, min_size=1, max_size=8))
    second = [draw(st.one_of(st.just(value), word)) for value in first]
    return name, first, second


@given(pairs())
def test_distances_are_those_of_exact_integers(pair: tuple[str, list[int], list[int]]) -> None:
    name, first, second = pair
    differ = [place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    ranks = [(rank(first[place], name), rank(second[place], name)) for place in differ]
    steps = sorted(abs(a - b) for a, b in ranks if a is not None and b is not None)
    found = difference(tensor_of(first, name), tensor_of(second, name))
    if not differ:
        assert found is None
        return
    assert found is not None
    assert (found.elements, found.differ, found.first_index) == (len(first), len(differ), differ[0])
    assert found.not_finite == len(differ) - len(steps)
    assert found.ulps_max == (steps[-1] if steps else None)
    assert found.ulps_median == (float(steps[(len(steps) - 1) // 2]) if steps else None)
    apart = unequal(array_bits(tensor_of(first, name)), array_bits(tensor_of(second, name)))
    assert apart is not None
    assert apart.signs_of_zero == steps.count(0)
    if name != "bfloat16":  # which numpy has not
        arrays = [tensor_of(words, name).numpy() for words in (first, second)]
        assert difference(*arrays) == found


@given(pairs())
def test_digests_are_equal_where_the_bits_are(pair: tuple[str, list[int], list[int]]) -> None:
    name, first, second = pair
    one, other = tensor_of(first, name), tensor_of(second, name)
    assert (bits_digest(one) == bits_digest(other)) == (first == second)
    assert (rows_digest(one) == rows_digest(other)) == (sorted(first) == sorted(second))
    if name != "bfloat16":
        assert bits_digest(one.numpy()) == bits_digest(one)
        assert rows_digest(one.numpy()) == rows_digest(one)


@given(st.permutations(range(5)), st.sampled_from([0, 1]))
def test_rows_in_another_order(order: list[int], axis: int) -> None:
    one = torch.arange(25.0).reshape(5, 5) + 1
    other = one.index_select(axis, torch.tensor(order))
    assert rows_digest(one, axis) == rows_digest(other, axis)
    found = difference(one, other)
    if order == sorted(order):
        assert found is None
        return
    assert found is not None
    assert found.kind == ("elements in another order" if axis else "rows in another order")
    assert bits_digest(one) != bits_digest(other)
    assert rows_digest(one, 1 - axis) != rows_digest(other, 1 - axis)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ([1.0, 2.0], [-1.0, -2.0], "sign"),
        ([1.0, 2.0], [-1.0, 2.0], "sign"),
        ([1.0, 2.0], [2.0, 1.0], "elements in another order"),
        ([0.0, 2.0], [-0.0, 2.0], "values"),  # no other value, though it is the sign that differs
        ([1.0, 2.0], [1.0, 3.0], "values"),
        ([1.0, torch.nan], [-1.0, 2.0], "values"),
    ],
)
def test_kinds(first: list[float], second: list[float], kind: str) -> None:
    found = difference(torch.tensor(first), torch.tensor(second))
    assert found is not None
    assert found.kind == kind


def test_shapes_and_types_are_no_matter_of_elements() -> None:
    for other in (torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float64)):
        found = difference(torch.zeros(2, 3), other)
        assert found is not None
        assert (found.kind, found.elements, found.differ, found.ulps_max) == ("shape", 6, 6, None)


def test_how_a_tensor_is_stored_does_not_matter() -> None:
    dense = torch.tensor([[0.0, 1.5], [2.0, 0.0]])
    for stored in (dense.to_sparse(), dense.t().contiguous().t(), torch._neg_view(-dense) + 0):
        assert bits_digest(stored) == bits_digest(dense)
    number = torch.tensor([1 + 2j])
    assert bits_digest(number.conj()) == bits_digest(torch.tensor([1 - 2j]))
    big = np.array([1.0, 2.0]).astype(">f8")
    assert bits_digest(big) == bits_digest(torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert bits_digest(torch.zeros(0, 3)) != bits_digest(torch.zeros(3, 0))
    assert rows_digest(torch.zeros(0, 3)) == rows_digest(np.zeros((0, 3), np.float32))


def test_what_is_no_array_has_no_bits() -> None:
    assert bits_of([1.0]) is None
    assert bits_of(np.array([{}])) is None
    with pytest.raises(TypeError, match="a list is no array"):
        bits_digest([1.0])


def test_it_imports_no_torch() -> None:
    code = "import sys, twinrun.inspect.bits, twinrun.twins.comparing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
