"""YAML is read as DVC reads it."""

from __future__ import annotations

import math

import pytest
from ruamel.yaml import YAML

from twinrun.study.yaml12 import YamlError, load_yaml

DOCUMENTS = [
    "5e-2", "1.", ".5", "-3", "+4", "010", "1E3", "no", "on", "yes", "true", "False", "null", "~", "", "12:30:45",
    "0.1", "1e5", "-.inf", "x", "1 2", "2024-01-01x", "[1, 5e-2, no]", "{a: 010, b: {c: 1e-8}}", "&a [1]", "'010'",
    '"5e-2"', "{<<: {a: 1, b: 2}, b: 3}",
]  # fmt: skip


@pytest.mark.parametrize("text", DOCUMENTS)
def test_as_dvcs_own_reader(text: str) -> None:
    reference = YAML(typ="safe", pure=True).load(f"value: {text}\n")
    found = load_yaml(f"value: {text}\n")
    assert found == reference
    assert type(found["value"]) is type(reference["value"])


def test_infinity_and_no_number() -> None:
    assert load_yaml("[.inf, -.inf]") == [math.inf, -math.inf]
    assert math.isnan(load_yaml(".nan"))


@pytest.mark.parametrize("text", ["{a: 1, a: 2}", "a: 1\nb: 2\na: 3\n", "x: {y: {z: 1, z: 2}}", "010: 1\n10: 2\n"])
def test_a_key_twice_is_refused(text: str) -> None:
    with pytest.raises(YamlError, match="stands there twice"):
        load_yaml(text)


@pytest.mark.parametrize("text", ["a: 1\nb: {{data}}\n", "a: 1\n? [b]\n: 1\n"])
def test_a_key_that_is_no_text_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(YamlError, match=r"where a key should(.|\n)*line 2, column [35]"):
        load_yaml(text)
