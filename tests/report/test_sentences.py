"""What the sentences of the report say, and that they say it in words that read well."""

import pandas as pd
import pytest
from tests.collect.synthetic import Synthetic
from tests.report.drafts import draft_of, replace_frame, study_of

from twinrun.collect.study import Study
from twinrun.report.section import Draft
from twinrun.report.sections import design, determinism, hidden, predictions, runtime, weights
from twinrun.report.sections.provenance import provenance

RUNS = ("det_1", "det_2", "nd_1", "nd_2", "nd_3")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    spec = Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(0, 1), runs=RUNS, n_test=100, epochs=1)
    return study_of(tmp_path_factory.mktemp("sentences"), spec)


@pytest.fixture(scope="module")
def made(study: Study) -> Draft:
    return draft_of(study)


@pytest.fixture
def draft(study: Study, made: Draft) -> Draft:
    return Draft(study, tables=dict(made.tables))


def test_churn_says_how_many_pairs_each_share_is_of(draft: Draft) -> None:
    (found,) = predictions.sentences(draft)
    assert "of the 100 test images (6 pairs), at an error of" in found
    assert found.endswith(" % (9 pairs of nd runs).")


def test_a_test_set_that_explains_all_scatter_is_said_in_words(draft: Draft) -> None:
    frame = draft.frame("finite_test_set")
    ends = {"share_low": 0.35, "share_high": 1.0}
    replace_frame(draft, "finite_test_set", frame.assign(share=0.4, **ends))
    _, found = hidden.sentences(draft)
    assert "the finite test set makes 0.40 of the variance of accuracy over nd runs (95 % interval 0.35 to" in found
    replace_frame(draft, "finite_test_set", frame.assign(share=2.86, **ends))
    _, found = hidden.sentences(draft)
    assert "accuracy scatters no more than a test set of this size makes it by itself" in found
    assert "2.86" not in found
    replace_frame(draft, "finite_test_set", frame.assign(share=None))  # the interval says nothing
    assert len(hidden.sentences(draft)) == 1


def test_runs_that_shared_their_machine_give_no_difference_of_times(draft: Draft) -> None:
    assert any("it is shorter in" in one for one in runtime.sentences(draft))
    study = draft.study
    measured = study.measured["shared"].copy()
    study.measured["shared"] = [place == 0 for place in range(len(measured))]
    found = runtime.sentences(draft)
    study.measured["shared"] = measured
    assert found[1] == "Of 10 runs 1 shared its machine with others and 0 were resumed."
    assert "are noise of the machine" in found[2]
    assert not any("training time differs" in one for one in found)


def test_one_cell_is_one_cell(draft: Draft) -> None:
    assert determinism.sentences(draft)[0].startswith("Yes: in all 2 cells the")
    replace_frame(draft, "determinism", draft.frame("determinism").head(1))
    yes, apart, *_ = determinism.sentences(draft)
    assert yes == "Yes: in the one cell the deterministic runs agree to the last bit."
    assert "in 1 of 1 cell;" in apart


def test_noise_is_told_device_by_device(study: Study) -> None:
    assert dict(provenance(study))["Device and noise in fact"] == "cpu: det none, nd reorder"
    both = pd.concat([study.results, study.results.assign(device="cuda")])
    mixed = Study(study.folder, study.info, both, study.curves, study.measured)
    assert (
        dict(provenance(mixed))["Device and noise in fact"] == "cpu: det none, nd reorder; cuda: det none, nd reorder"
    )


def test_captions_and_notes_know_the_singular(draft: Draft) -> None:
    (note,) = draft.tables["det_test"].notes
    assert note.startswith("Below 0.05 among 2 cells: ")
    assert weights.figures(draft)[0].alt.startswith("Small multiples, 1 task by 1 optimizer: ")


def test_free_arms_name_their_noise_and_fixed_ones_none(draft: Draft) -> None:
    lines = {line.split("`")[1]: line for line in design.SECTION.sentences(draft) if line.startswith("`")}
    assert {arm: " Here: " in line for arm, line in lines.items()} == {"det": False, "nd": True}
