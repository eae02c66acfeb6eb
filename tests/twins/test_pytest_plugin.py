"""The pytest plugin: twins of functions and programs in a test, golden fingerprints by platform."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from twinrun.study.errors import InputError
from twinrun.twins import golden

Check = Callable[..., Any]


def trained(seed: int | None = None) -> nn.Module:
    model = nn.Linear(3, 2)
    nn.init.normal_(model.weight, generator=None if seed is None else torch.Generator().manual_seed(seed))
    return model


def test_a_seeded_function_has_identical_twins(twins: Check) -> None:
    assert isinstance(twins(trained), nn.Linear)
    assert twins(lambda: (random.random(), np.random.rand(2), torch.rand(2)), 3)[0] < 1  # noqa: NPY002


def test_a_function_whose_calls_differ_is_named(twins: Check) -> None:
    seeds = count()
    with pytest.raises(AssertionError, match=r"call 1 and call 2 differ: \['weight'\]: 6 of 6 elements differ"):
        twins(lambda: trained(next(seeds)))


def test_an_object_that_goes_on_changing_is_no_twin_of_itself(twins: Check) -> None:
    model = nn.Linear(1, 1)

    def step() -> nn.Module:
        with torch.no_grad():
            model.weight += 1
        return model

    with pytest.raises(AssertionError, match="call 1 and call 2 differ"):
        twins(step)


@pytest.mark.parametrize("nothing", [None, {}, []])
def test_a_function_that_returns_nothing_is_no_test(twins: Check, nothing: object) -> None:
    with pytest.raises(ValueError, match="returned nothing: return what is to be compared"):
        twins(lambda: nothing)


def test_a_program_has_twins(twins: Check, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import os; open('out', 'w').write(os.environ['TWINRUN_SEED'])")
    command = [sys.executable, "train.py"]
    result = twins(command, folder=tmp_path, seed=7, outputs=["out"])
    assert result.verdict == "identical"
    assert (result.twins[1].folder / "out").read_text() == "7"


def test_a_program_whose_twins_differ_fails_the_test(twins: Check, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import os; open('out', 'w').write(os.urandom(4).hex())")
    with pytest.raises(AssertionError, match="verdict: different, first in out"):
        twins(f"{sys.executable} train.py", folder=tmp_path)


def test_mistakes_in_a_test(twins: Check) -> None:
    with pytest.raises(ValueError, match="n is 1"):
        twins(trained, 1)
    with pytest.raises(TypeError, match="take no outputs"):
        twins(trained, outputs=["a"])


def test_a_golden_fingerprint_is_recorded_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "fingerprints" / "test_a.json"
    value = {"w": np.float32([1, 2]), "n": 3, "t": [True, None, 0.5]}
    with pytest.raises(
        AssertionError, match=r"test_b: no golden fingerprint of this platform \(Linux .*pinned; there is"
    ):
        golden.check(file, "test_b", value, update=False)
    golden.check(file, "test_b", value, update=True)
    golden.check(file, "test_b", dict(value), update=False)
    for other in ({**value, "n": 4}, {**value, "w": np.float32([1, np.nextafter(np.float32(2), 3)])}, {"x": 1}):
        with pytest.raises(
            AssertionError, match=r"test_b: fingerprint .{16}\.\.\. instead of .* if that is meant: --twinrun-update"
        ):
            golden.check(file, "test_b", other, update=False)
    assert list(json.loads(file.read_text())["test_b"]) == [golden.this_platform()]
    assert [path.name for path in file.parent.iterdir()] == ["test_a.json"]


def test_platforms_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    golden.check(file, "t", 1, update=True)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # no longer pinned: this processor counts
    with pytest.raises(AssertionError, match="no golden fingerprint of this platform"):
        golden.check(file, "t", 1, update=False)
    golden.check(file, "t", 2, update=True)
    golden.check(file, "t", 2, update=False)
    monkeypatch.undo()
    golden.check(file, "t", 1, update=False)


@pytest.mark.parametrize("text", ["[]", '{"t": 1}', '{"t": {"a": 1}}', "no JSON"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError):
        golden.check(tmp_path / "a.json", "t", 1, update=False)


def test_what_has_no_bits_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"\['a'\]: a builtins.object has no bits"):
        golden.check(tmp_path / "a.json", "t", {"a": object()}, update=False)


def test_the_option_records_them(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import os\n"
        "def test_it(golden_fingerprint):\n"
        "    golden_fingerprint({'a': int(os.environ['VALUE'])})\n"
        "    golden_fingerprint([1.5], 'second')\n"
    )

    def run(value: int, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_mine.py"]
        environment = os.environ | {"VALUE": str(value)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert run(1, "--twinrun-update").returncode == 0
    done = run(2)
    assert done.returncode == 1
    assert "test_it: fingerprint" in done.stdout
    golden_file = json.loads((tmp_path / "fingerprints" / "test_mine.json").read_text())
    assert sorted(golden_file) == ["test_it", "test_it second"]
