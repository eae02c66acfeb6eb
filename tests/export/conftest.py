"""A small finished and analyzed study, made of synthetic records."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.collect.synthetic import Synthetic, write_study

from twinrun.collect.collect import collect
from twinrun.report.build import analyze
from twinrun.study.layout import Layout
from twinrun.study.params import Params


@pytest.fixture(scope="session")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    """Params and the folder of four runs, one of them diverged, with collected/ and analysis/."""
    root = tmp_path_factory.mktemp("analyzed")
    spec = Synthetic(
        tasks=("digits",), optimizers=("sgd",), seeds=(0,), runs=("det_1", "nd_1", "nd_2", "nd_3"), epochs=2,
        diverged=frozenset({"digits/sgd/0/nd_3"}),
    )  # fmt: skip
    params, layout = write_study(root, spec)
    collect(params, layout, code_digest="c" * 64)
    analyze(layout.collected, layout.analysis)
    return params, root


@pytest.fixture
def finished(analyzed: tuple[Params, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    """A copy of that study to write into, whose code is the present one."""
    monkeypatch.setattr("twinrun.export.exporting.current_code_digest", lambda: "c" * 64)
    params, root = analyzed
    shutil.copytree(root, tmp_path / "study")
    return params, Layout(tmp_path / "study")
