"""Comparison to the last bit: what differs is named, counted and measured; equal bits are equal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import twinrun
from twinrun.inspect.bits import Bits, bits_of, difference
from twinrun.twins.nested import compare_bits


def message(first: Any, second: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        twinrun.assert_same_bits(first, second)
    return str(caught.value)


def compared(first: Any, second: Any) -> Any:
    one, other = bits_of(first), bits_of(second)
    assert one is not None
    assert other is not None
    return compare_bits("x", one, other)


def test_equal_values_pass() -> None:
    for value in (
        np.arange(6.0).reshape(2, 3), torch.ones(2, 3), torch.tensor(1), np.float32(1), 1, 1.5, ["a"], b"a", None, True,
        {"a": [np.zeros(0), (1, 2)]}, nn.BatchNorm1d(3), np.array([np.nan]), np.zeros((0, 3)), [], 2**2000,
    ):  # fmt: skip
        twinrun.assert_same_bits(value, value)
    twinrun.assert_same_bits(torch.ones(3), np.ones(3, np.float32))
    twinrun.assert_same_bits(torch.arange(6).reshape(2, 3).t(), np.arange(6).reshape(2, 3).T)


def test_the_path_the_count_and_the_ulps_are_named() -> None:
    first = {"net": [torch.ones(4, 3), torch.zeros(2)]}
    second = {"net": [torch.ones(4, 3), torch.zeros(2)]}
    second["net"][0][1, 2] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert message(first, second) == (
        "not the same bits: ['net'][0]: 1 of 12 elements differ, by at most 1 ulp or 1.19e-07, "
        "first at [1, 2]: 1.0 against 1.0000001"
    )


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "bfloat16"])
def test_ulps_are_steps_of_the_type_also_across_zero(kind: str) -> None:
    one = torch.tensor([1.0, -1.0], dtype=getattr(torch, kind))
    smallest = torch.tensor([1, 1 - 2**15 if one.element_size() == 2 else 1], dtype=torch.int16)
    if one.element_size() == 2:
        tiny = smallest.view(one.dtype)  # the smallest positive number and the smallest negative one
        assert compared(tiny[:1], tiny[1:]).ulps == 2
    up = torch.nextafter(one, torch.full_like(one, 2)) if kind != "bfloat16" else (
        (one.view(torch.int16) + torch.tensor([1, -1], dtype=torch.int16)).view(one.dtype)
    )  # fmt: skip
    found = compared(one, up)
    assert (found.elements, found.of, found.ulps) == (2, 2, 1)
    assert found.absolute == float((up.double() - one.double()).abs().max())


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "bfloat16"])
def test_ulps_are_those_of_the_audit(kind: str) -> None:
    """`twinrun audit` and `twinrun twins` count alike, infinities, zeros and NaNs included."""
    torch.manual_seed(0)
    special = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1.0, -1.0]
    one = torch.cat([torch.randn(50), torch.tensor(special).repeat(len(special))]).to(getattr(torch, kind))
    other = torch.cat([torch.randn(50), torch.tensor(special).repeat_interleave(len(special))]).to(one.dtype)
    for a, b in zip(one, other, strict=True):
        found = difference(a.reshape(1), b.reshape(1))
        counted = compare_bits("", *map(bits_of, (a.reshape(1), b.reshape(1))))  # type: ignore[arg-type]
        assert (found is None) == (counted is None), (a, b)
        assert found is None or counted is None or (counted.ulps or 0) == (found.ulps_max or 0), (a, b)


def test_signs_of_zero_and_payloads_of_nan_are_bits() -> None:
    assert "1 are 0.0 in one and -0.0 in the other" in message(np.float32([0.0]), np.float32([-0.0]))
    nans = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert "1 are NaN in both, with other bits" in message(nans[:1], nans[1:])
    assert "1 are NaN in one of them" in message(np.array([np.nan]), np.array([1.0]))
    found = compared(np.array([np.inf, 1.0]), np.array([-np.inf, 1.0]))
    assert found.absolute == np.inf
    assert compared(np.array([np.nan, 1.0]), np.array([2.0, 1.5])).absolute == 0.5


def test_types_and_shapes_count() -> None:
    assert message(np.zeros(2, np.float32), np.zeros(2)) == "not the same bits: type float32 against float64"
    assert message(np.zeros((2, 1)), np.zeros(2)) == "not the same bits: shape [2, 1] against [2]"
    assert "type int against float: 1 against 1.0" in message({"a": 1}, {"a": 1.0})
    assert "type bool against int" in message(True, 1)
    assert "type float64 array against NoneType" in message(np.zeros(1), None)
    assert "['b']: only in the second" in message({"a": 1}, {"a": 1, "b": 2})
    assert "['a']: only in the first" in message({"a": 1}, {})
    assert "2 items against 1" in message([1, 2], [1])


def test_other_types_have_their_distances() -> None:
    ends = np.array([-(2**63), 2**63 - 1])
    assert compared(ends[:1], ends[1:]).absolute == float(2**64 - 1)
    assert compared(np.array([True]), np.array([False])).absolute is None
    assert compared(np.array([1 + 1j]), np.array([1 + 2j])).absolute == 1
    assert compared(np.array(["a"]), np.array(["b"])).elements == 1
    assert compared(torch.ones(2, dtype=torch.float8_e4m3fn), torch.zeros(2, dtype=torch.float8_e4m3fn)).elements == 2
    swapped = np.array([1.0, 2.0]).astype(">f8")
    twinrun.assert_same_bits(swapped, np.array([1.0, 2.0]))


def test_modules_are_their_parameters_and_buffers() -> None:
    first, second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    second.num_batches_tracked += 1
    assert "['num_batches_tracked']" in message(first, second)


def test_many_places_are_counted() -> None:
    text = message({f"k{index}": index for index in range(9)}, {f"k{index}": -1 - index for index in range(9)})
    assert text.endswith("and 4 more places")
    assert text.count("against") == 5


def test_what_has_no_bits_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"\['a'\]: a builtins.object has no bits"):
        twinrun.assert_same_bits({"a": object()}, {"a": object()})
    with pytest.raises(TypeError, match="ndarray"):
        twinrun.assert_same_bits(np.array([{}]), np.array([{}]))


@pytest.mark.parametrize("name", ["a.pt", Path("a.pt"), ""])
def test_the_names_of_files_are_not_taken_for_what_is_in_them(name: object) -> None:
    with pytest.raises(TypeError, match=rf"'{name}' is a text, and no file is opened: give tensors"):
        twinrun.assert_same_bits(name, name)


def test_bytes_name_the_first_offset() -> None:
    assert "3 bytes; 1 differ, the first at offset 1" in message(b"abc", b"axc")
    assert "3 against 5 bytes; 2 differ, the first at offset 3" in message(b"abc", b"abcde")


def test_it_needs_no_torch() -> None:
    code = (
        "import sys, numpy, twinrun; twinrun.assert_same_bits([numpy.ones(2)], [numpy.ones(2)]); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_import_is_light() -> None:
    code = "import sys, twinrun; print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bits_of_unknown_types_are_compared_as_bytes() -> None:
    one, other = (Bits("f4_e2m1", (2,), np.array(values, np.uint8)) for values in ([1, 2], [1, 3]))
    found = compare_bits("x", one, other)
    assert found is not None
    assert "1 of 2 elements differ, first at [1]: 0x02 against 0x03" in str(found)
