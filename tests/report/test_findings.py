"""What the sentences of the report say, and that they say it in words that read well."""

import pandas as pd
import pytest
from tests.collect.synthetic import CODE, Synthetic, write_study

from twinrun.collect.collect import collect
from twinrun.collect.study import Study, load_study
from twinrun.report.build import build_tables
from twinrun.report.sections import findings
from twinrun.report.sections.figures_weights import head_sd_figure
from twinrun.report.sections.provenance import provenance
from twinrun.report.sections.tables_weights import weights_table

RUNS = ("det_1", "det_2", "nd_1", "nd_2", "nd_3")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    spec = Synthetic(tasks=("digits",), optimizers=("sgd",), seeds=(0, 1), runs=RUNS, n_test=100, epochs=1)
    params, layout = write_study(tmp_path_factory.mktemp("findings"), spec)
    collect(params, layout, code_digest=CODE)
    return load_study(layout.collected)


@pytest.fixture
def frames(study: Study) -> findings.Frames:
    return {name: table.frame.copy() for name, table in build_tables(study).items()}


def test_churn_says_how_many_pairs_each_share_is_of(study: Study, frames: findings.Frames) -> None:
    (found,) = findings.churn(study, frames)
    assert "of the 100 test images (6 pairs), at an error of" in found
    assert found.endswith(" % (9 pairs of nd runs).")


def test_a_test_set_that_explains_all_scatter_is_said_in_words(study: Study, frames: findings.Frames) -> None:
    frames["hidden"]["test_set_share"] = 0.4
    assert "the finite test set makes 0.40 of the variance" in findings.hidden(study, frames)[0]
    frames["hidden"]["test_set_share"] = 2.86
    (found,) = findings.hidden(study, frames)
    assert "accuracy scatters no more than a test set of this size makes it by itself" in found
    assert "2.86" not in found


def test_runs_that_shared_their_machine_give_no_difference_of_times(study: Study, frames: findings.Frames) -> None:
    assert any("it is shorter in" in one for one in findings.cost(study, frames))
    measured = study.measured["shared"].copy()
    study.measured["shared"] = [place == 0 for place in range(len(measured))]
    found = findings.cost(study, frames)
    study.measured["shared"] = measured
    assert found[1] == "Of 10 runs 1 shared its machine with others and 0 were resumed."
    assert "are noise of the machine" in found[2]
    assert not any("training time differs" in one for one in found)


def test_one_cell_is_one_cell(frames: findings.Frames) -> None:
    assert findings.determinism(frames)[0].startswith("Yes: in all 2 cells the")
    frames["determinism"] = frames["determinism"].head(1)
    yes, apart, *_ = findings.determinism(frames)
    assert yes == "Yes: in the one cell the deterministic runs agree to the last bit."
    assert "in 1 of 1 cell;" in apart


def test_noise_is_told_device_by_device(study: Study) -> None:
    assert dict(provenance(study))["Device and noise in fact"] == "cpu: det none, nd reorder"
    both = pd.concat([study.results, study.results.assign(device="cuda")])
    mixed = Study(study.folder, study.info, both, study.curves, study.measured)
    assert (
        dict(provenance(mixed))["Device and noise in fact"] == "cpu: det none, nd reorder; cuda: det none, nd reorder"
    )


def test_captions_and_notes_know_the_singular(study: Study) -> None:
    (note,) = build_tables(study)["det_test"].notes
    assert note.startswith("Below 0.05 among 2 cells: ")
    assert head_sd_figure(study, weights_table(study).frame).alt.startswith("Small multiples, 1 task by 1 optimizer: ")
