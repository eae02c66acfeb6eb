"""Free runs that are all the same are named first on the page, with what changes nothing."""

from pathlib import Path

import numpy as np
import pytest
from tests.collect.synthetic import Synthetic
from tests.report.drafts import study_of

from twinrun.collect.study import Study
from twinrun.report.alike import findings
from twinrun.report.build import analyze
from twinrun.report.page import write_report
from twinrun.report.section import Draft
from twinrun.report.sections import answers


def made(root: Path, **changes: object) -> Study:
    spec = Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(0, 1), epochs=1, **changes)  # type: ignore[arg-type]
    return study_of(root, spec)


def predict_as(study: Study, leader: int, rows: list[int]) -> None:
    values = np.array(study.probabilities("digits"))
    values[rows] = values[leader]
    np.save(study.folder / "digits/probabilities.npy", values)


def test_runs_that_differ_are_no_finding(tmp_path: Path) -> None:
    assert findings(Draft(made(tmp_path))) == []


def test_noise_that_changes_no_bit_stands_first_on_the_page(tmp_path: Path) -> None:
    (said,) = findings(draft := Draft(made(tmp_path, ties=True)))
    assert said.startswith(
        "Handwritten digits: caution, the noise changes nothing: the nd runs of each of 2 cells have"
    )
    assert list(answers.SECTION.sentences(draft)) == [said]
    analyze(draft.study.folder, tmp_path / "analysis")
    page = write_report(tmp_path / "analysis", draft.study.folder, tmp_path / "report")
    assert f'<p class="banner" role="note">{said}</p>\n<div class="answers"' in page.read_text()
    assert page.with_name("report.md").read_text().index(said) < 200


@pytest.mark.parametrize("cells", [1, 2])
def test_noise_that_changes_no_prediction_is_one_only_in_all_cells(tmp_path: Path, cells: int) -> None:
    study = made(tmp_path)
    for group in list(study.groups("nd"))[:cells]:
        predict_as(study, group.rows[0], group.rows)
    lines = findings(Draft(study))
    if cells == 1:
        assert lines == []
    else:
        assert "the noise changes no prediction: the nd runs of each of 2 cells name the same class" in lines[0]
        assert "though their weights differ" in lines[0]


def test_a_seed_that_changes_nothing(tmp_path: Path) -> None:
    study = made(tmp_path)
    study.results["fingerprint"] = study.results["label"].to_numpy()  # the same for both seeds
    (said,) = findings(Draft(study))
    assert "caution, the seed changes nothing: runs of 2 seeds ended with one fingerprint, with every opt" in said


def test_a_seed_that_changes_no_prediction(tmp_path: Path) -> None:
    study = made(tmp_path)
    first, second = study.groups("det")
    predict_as(study, first.rows[0], second.rows)
    (said,) = findings(Draft(study))
    assert "the seed changes nothing: runs of 2 seeds name the same class for each test image" in said


def test_different_entropy_and_one_fingerprint(tmp_path: Path) -> None:
    study = made(tmp_path)
    group = next(study.groups("nd"))
    study.results.loc[group.places[1], "fingerprint"] = study.results.loc[group.places[0], "fingerprint"]
    (said,) = findings(Draft(study))
    assert "in 1 cell free runs with different entropy ended with one fingerprint, though others differ" in said


def test_everything_free_and_nothing_changed(tmp_path: Path) -> None:
    (said,) = findings(Draft(made(tmp_path, ties=True, runs=("all_1", "all_2"))))
    assert "caution, seed and noise together change nothing: the all runs of each of 2 cells" in said
