"""The grid: labels, ids, order, and what each arm sets free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.study.errors import InputError
from twinrun.study.grid import ARMS, STREAMS, Run, expand, find, parse_label


def test_order_is_that_of_the_lists() -> None:
    runs = expand(["b", "a"], ["sgd"], [9, 1], ["nd_2", "det_1"])
    assert [run.id for run in runs] == [
        "b/sgd/9/nd_2", "b/sgd/9/det_1", "b/sgd/1/nd_2", "b/sgd/1/det_1",
        "a/sgd/9/nd_2", "a/sgd/9/det_1", "a/sgd/1/nd_2", "a/sgd/1/det_1",
    ]  # fmt: skip
    assert runs[0].stage == "train@b-sgd-9-nd_2"


@given(st.sampled_from(sorted(ARMS)), st.integers(1, 10**6))
def test_label_round_trip(arm: str, replicate: int) -> None:
    assert parse_label(Run("t", "adam", 0, arm, replicate).label) == (arm, replicate)


@pytest.mark.parametrize("label", ["", "det", "det_0", "det_01", "nd_1 ", "ND_1", "other_1", "nd_1_2", "nd_-1"])
def test_bad_labels(label: str) -> None:
    with pytest.raises(InputError, match="is not known"):
        parse_label(label)


def test_what_is_free() -> None:
    free = {arm: (Run("t", "sgd", 0, arm, 1).free_streams, Run("t", "sgd", 0, arm, 1).free_noise) for arm in ARMS}
    assert free["det"] == ((), False)
    assert free["nd"] == ((), True)
    assert free["ulp"] == ((), True)
    assert free["all"] == (STREAMS, True)
    assert {arm: value for arm, value in free.items() if arm in STREAMS} == {s: ((s,), False) for s in STREAMS}


def test_find_names_the_nearest() -> None:
    runs = expand(["digits"], ["sgd"], [0], ["det_1"])
    assert find(runs, "digits/sgd/0/det_1") == runs[0]
    with pytest.raises(InputError, match="nearest is digits/sgd/0/det_1"):
        find(runs, "digits/sgd/0/det_2")
