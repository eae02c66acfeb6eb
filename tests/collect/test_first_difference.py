"""The answer of `twinrun locate`: in words, and as it is written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinrun.collect.first_difference import (
    DifferingOperation,
    FirstDifference,
    Growth,
    described,
    read_first_difference,
    sentences,
    write_first_difference,
)
from twinrun.study.errors import MismatchError
from twinrun.study.files import read_json, write_json

OPERATION = DifferingOperation(
    phase="backward", operation="aten.mm.default", module="layer1", module_type="Linear", side="output",
    tensor="output 0", elements=10, differ=3, kind="values", ulps_max=4, ulps_median=1.5,
)  # fmt: skip
GROWTH = Growth(
    step=8, epoch=1, weights_differ=90, weights=100, ulps_max=7, ulps_median=2.0, relative_l2=0.0123, flipped=2,
    examples=50, loss_first=1.0, loss_second=1.1,
)  # fmt: skip
FOUND = FirstDifference(
    schema=1, first="nd_1", second="nd_2", task="digits", params_digest="a" * 64, code_digest="b" * 64,
    data_digest="c" * 64, device="cpu", fingerprints=["d" * 64, "e" * 64], outcome="located", how=["replayed"],
    epoch=1, step=3, steps_before=2, parting=OPERATION, arithmetic=OPERATION, growth=[GROWTH],
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "phase backward, aten.mm.default in layer1 (Linear), output 0: 3 of 10 elements differ (values, at most 4 "
             "ulps, median 1.5)"),
        ({"operation": "(state)", "tensor": "weights", "elements": None}, "phase backward, weights"),
        ({"operation": "(draw)", "tensor": "crops", "ulps_max": None},
         "phase backward, crops: 3 of 10 elements differ (values)"),
        ({"operation": "(module)", "module": "", "elements": None},
         "phase backward, output of the model itself (Linear), made by an operation that PyTorch's dispatcher does not "
         "show (opaque)"),
        ({"opaque": True, "side": "input", "tensor": "x", "elements": None},
         "phase backward, aten.mm.default in layer1 (Linear), input x, which came from outside of what PyTorch's "
         "dispatcher shows (opaque)"),
        ({"opaque": True, "module": "(loss)", "elements": None, "other_operation": "aten.add"},
         "phase backward, aten.mm.default in (loss); the second run does aten.add instead"),
    ],
)  # fmt: skip
def test_a_difference_in_words(changed: dict[str, object], words: str) -> None:
    assert described(OPERATION.model_copy(update=changed)) == words


def test_an_answer_in_words() -> None:
    first = f"First difference: {described(OPERATION)}."
    lines = [
        "nd_1 and nd_2 part in epoch 1, step 3, after 2 equal steps.", first,
        "8 steps later 90 of 100 weights differ (distance 0.0123 of their length), and 2 of 50 test examples are "
        "predicted otherwise.", "replayed",
    ]  # fmt: skip
    assert sentences(FOUND) == lines
    other = OPERATION.model_copy(update={"module": "layer2"})
    wild = FOUND.model_copy(
        update={"arithmetic": other, "growth": [GROWTH, GROWTH.model_copy(update={"relative_l2": None})]}
    )
    said = sentences(wild)
    assert said[2] == f"First that is more than another order of the same examples: {described(other)}."
    assert "(distance not finite)" in said[3]
    none = FOUND.model_copy(update={"outcome": "none"})
    assert sentences(none) == ["nd_1 and nd_2: none: no difference was found.", "replayed"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "pair.json"
    still = GROWTH.model_copy(update={"step": 9, "relative_l2": None})
    write_first_difference(path, FOUND.model_copy(update={"growth": [GROWTH, still]}))
    assert read_first_difference(path).growth == [GROWTH, still]
    assert path.with_suffix(".csv").read_text().splitlines() == [
        "step,epoch,weights_differ,weights,ulps_max,ulps_median,relative_l2,flipped,examples,loss_first,loss_second",
        "8,1,90,100,7,2.0,0.0123,2,50,1.0,1.1",
        "9,1,90,100,7,2.0,,2,50,1.0,1.1",
    ]
    write_json(path, read_json(path) | {"outcome": "lost"})
    with pytest.raises(MismatchError, match=r"pair\.json: not a located pair of this version: outcome"):
        read_first_difference(path)
