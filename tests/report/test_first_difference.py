"""Where the runs part: the report's section from located files, and what it says where there are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.collect.synthetic import Synthetic, snapshot
from tests.report.drafts import collected as write_collected
from tests.report.drafts import draft_of

from twinrun.collect.first_difference import (
    DifferingOperation,
    FirstDifference,
    Growth,
    read_first_difference,
    write_first_difference,
)
from twinrun.collect.first_difference import sentences as answer
from twinrun.collect.study import Study, load_study
from twinrun.report.section import Draft
from twinrun.report.sections.first_difference import SECTION, STALE, figures, sentences, tables
from twinrun.report.style import save
from twinrun.report.table import Table
from twinrun.study.errors import MismatchError, ResourceError
from twinrun.study.files import write_text
from twinrun.study.layout import Layout

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return write_collected(tmp_path_factory.mktemp("located"), Synthetic(n_test=40, epochs=2))


@pytest.fixture
def layout(collected: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(collected.collected, tmp_path / "collected")
    return Layout(tmp_path)


def parting_table(study: Study) -> Table:
    return tables(Draft(study))[0]


ORDER = DifferingOperation(phase="batch", operation="(draw)", module="", side="output", tensor="order of the examples",
                kind="elements in another order", elements=64, differ=62)  # fmt: skip
ROUNDS = DifferingOperation(phase="forward", operation="aten.native_batch_norm.default", module="blocks.0.bn1",
                 module_type="BatchNorm2d", side="output", tensor="output 1", kind="values", elements=8, differ=3,
                 ulps_max=5, ulps_median=1.5)  # fmt: skip


def located(layout: Layout, task: str = "cracks", **changes: object) -> FirstDifference:
    study = load_study(layout.collected)
    mine = study.results[study.results["task"] == task]
    first = mine[mine["arm"] == "det"].iloc[0]
    second = mine[(mine["arm"] == "nd") & (mine["seed"] == first["seed"])].iloc[0]
    growth = [
        Growth(step=n, epoch=1, weights_differ=1 + n, weights=100, ulps_max=1 + n, ulps_median=1.0,
               relative_l2=None if n == 3 else 1e-7 * (n + 1), flipped=n, examples=40, loss_first=1.0, loss_second=1.0)
        for n in range(4)
    ]  # fmt: skip
    facts = {
        "first": first["id"], "second": second["id"], "task": task, "params_digest": "a" * 64, "data_digest": "a" * 64,
        "code_digest": study.info["code_digest"], "device": "cpu", "outcome": "located", "how": ["Done again."],
        "fingerprints": [first["fingerprint"], second["fingerprint"]], "epoch": 1, "step": 2, "steps_before": 1,
        "parting": ORDER, "arithmetic": ROUNDS, "operations": 9, "growth": growth,
    }  # fmt: skip
    return FirstDifference(**(facts | changes))


def test_a_study_that_was_not_located_says_so(layout: Layout, reported: Layout) -> None:
    study = load_study(layout.collected)
    table = parting_table(study)
    assert table.frame.empty
    assert figures(Draft(study)) == []
    assert list(sentences(draft_of(study, SECTION))) == []
    page = (reported.report / "index.html").read_text()
    assert "The first difference" in page
    assert "Needs <code>twinrun locate --all</code>" in page


def test_a_located_study(layout: Layout) -> None:
    found = located(layout)
    write_first_difference(layout.located / "cracks.json", found)
    assert read_first_difference(layout.located / "cracks.json") == found
    draft = draft_of(load_study(layout.collected), SECTION)
    frame = draft.frame("parting")
    mine = frame[frame["remark"].isna()]
    assert list(mine["found"]) == ["first difference", "first other rounding"]
    assert list(mine["differing"]) == ["62 of 64", "3 of 8"]
    assert list(mine["ulps_max"].astype(object)) == [pd.NA, 5], "whole numbers, where some are missing, too"
    assert set(mine["parted_in"]) == {"epoch 1, step 2"}
    text = "\n".join(sentences(draft))
    assert "first differ in epoch 1, step 2: batch, order of the examples, 62 of 64 elements" in text
    assert "`aten.native_batch_norm.default` in blocks.0.bn1 (BatchNorm2d) (forward): output 1, 3 of 8" in text
    for name in ("a", "b"):
        (drawn,) = figures(draft)
        assert save(drawn, layout.root / name) == ["parting_cracks.svg", "parting_cracks.png"]
    assert snapshot(layout.root / "a") == snapshot(layout.root / "b")


@pytest.mark.parametrize("changes", [{"code_digest": "9" * 64}, {"fingerprints": ["9" * 64] * 2}])
def test_what_was_located_for_other_runs_is_not_shown(layout: Layout, changes: dict[str, object]) -> None:
    write_first_difference(layout.located / "cracks.json", located(layout, **changes))
    study = load_study(layout.collected)
    assert STALE in list(parting_table(study).frame["remark"])
    assert figures(Draft(study)) == []


def test_a_damaged_file_is_named(layout: Layout) -> None:
    write_text(layout.located / "cracks.json", '{"schema": 1}')
    with pytest.raises(MismatchError, match=r"cracks\.json: not a located pair of this version"):
        read_first_difference(layout.located / "cracks.json")
    assert any(
        "not a located pair" in str(text) for text in parting_table(load_study(layout.collected)).frame["remark"]
    )


def test_a_folder_in_the_place_of_the_file_is_not_taken_for_none(layout: Layout) -> None:
    (layout.located / "cracks.json").mkdir(parents=True)
    with pytest.raises(ResourceError, match=r"cracks\.json"):
        parting_table(load_study(layout.collected))


def test_two_steps_make_a_figure(layout: Layout) -> None:
    write_first_difference(layout.located / "cracks.json", located(layout, growth=located(layout).growth[:2]))
    assert len(figures(Draft(load_study(layout.collected)))) == 1


def test_none_is_said_in_words(layout: Layout) -> None:
    none = located(layout, outcome="none", parting=None, arithmetic=None, growth=[], epoch=None, step=None)
    assert ": none: no difference was found." in answer(none)[0]
    write_first_difference(layout.located / "cracks.json", none)
    assert "none: no difference was found" in list(parting_table(load_study(layout.collected)).frame["remark"])
