"""What accuracy hides: closed forms, simulation and brute force."""

import itertools
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon
from tests.collect.synthetic import CODE, Synthetic, as_an_older_version_collected, write_study

from twinrun.collect.collect import collect
from twinrun.collect.study import Study, load_study
from twinrun.report.section import Draft
from twinrun.report.sections.hidden import share_table, tables
from twinrun.stats import churn as p
from twinrun.stats import weights as w
from twinrun.stats.agreement import chosen_pairs, js_distance, recall_by_class
from twinrun.stats.churn import churn_interval
from twinrun.stats.finite_test_set import finite_test_share
from twinrun.stats.finite_test_set import test_set_part as set_part
from twinrun.stats.samples import Interval
from twinrun.study.errors import MismatchError


def draw(runs: int, examples: int, rng: np.random.Generator, apart: float = 0.0) -> np.ndarray:
    """Errors of runs that find the same images hard; runs differ in how good they are by `apart`."""
    hard = rng.normal(-2.5, 1.5, examples) + apart * rng.normal(size=(runs, 1))
    return (rng.random((runs, examples)) < 1 / (1 + np.exp(-hard))).astype(np.uint8)


def interval(predicted: np.ndarray, classes: int = 2) -> Interval:
    return churn_interval(predicted, p.class_counts(predicted, predicted.shape[1], classes))


@pytest.mark.parametrize("images", [300, 2000])
@pytest.mark.parametrize("apart", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("runs", [5, 30])
def test_interval_of_churn_covers(runs: int, apart: float, images: int) -> None:
    """Alike runs, and runs whose pairwise churn differs by a tenth and by a fifth: where the bootstrap covered 89 %."""
    rng = np.random.default_rng(runs * images)
    truth = np.mean([p.churn(*draw(2, 20_000, rng, apart)) for _ in range(400)])
    times = 800 if runs * images < 50_000 else 300
    found = [interval(draw(runs, images, rng, apart)) for _ in range(times)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    slack = 2 * math.sqrt(0.05 * 0.95 / times)
    assert 0.94 - slack <= covered <= 0.98 + slack


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_interval_of_churn_covers_runs_that_differ_as_a_whole(runs: int) -> None:
    """Thresholds with an SD of 6 points of the images: without the factor (R + 3) / (R - 1) it covers 91 to 92 %."""
    rng = np.random.default_rng(runs)
    truth = math.acos(1 / (1 + 0.1**2 + 0.15**2)) / math.pi
    held = []
    for _ in range(500):
        place = rng.normal(size=600) + 0.15 * rng.normal(size=(runs, 1)) + 0.1 * rng.normal(size=(runs, 600))
        found = interval((place > 0).astype(np.uint8))
        held.append(found.low <= truth <= found.high)
    assert 0.925 <= np.mean(held) <= 0.985


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.int64, st.tuples(st.integers(2, 6), st.integers(2, 30)), elements=st.integers(0, 2)), st.randoms()
)
def test_interval_of_churn_has_no_order(predicted: np.ndarray, random) -> None:
    found = interval(predicted, 3)
    runs, images = (random.sample(range(size), size) for size in predicted.shape)
    assert interval(predicted[runs][:, images], 3) == found
    if found.low is not None:
        assert 0 < found.low <= found.value <= found.high <= 1
    else:
        assert found.reason.startswith("not defined: ")


def test_interval_of_churn_is_the_jackknife_of_both_ways() -> None:
    """Against leaving out each run and each image in turn, by brute force."""
    predicted = draw(6, 40, np.random.default_rng(4), 0.8)
    runs, images = predicted.shape

    def churn(rows: np.ndarray) -> np.ndarray:
        return np.mean([a != b for a, b in itertools.combinations(rows, 2)], axis=0)

    left = np.array([churn(np.delete(predicted, run, axis=0)) for run in range(runs)])
    jackknife = (runs - 1) / runs * ((left.mean(axis=1) - left.mean()) ** 2).sum()
    single = (runs - 1) / runs * ((left - left.mean(axis=0)) ** 2).sum() / images**2
    over_images = churn(predicted).var(ddof=1) / images
    assert jackknife > single
    jackknife, single = (part * (runs + 3) / (runs - 1) for part in (jackknife, single))
    variance = over_images + max(jackknife - single, 0)
    df = variance**2 / (over_images**2 / (images - 1) + jackknife**2 / (runs - 2))
    found = interval(predicted)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance) / churn(predicted).mean()
    assert math.log(found.high / found.low) == pytest.approx(2 * half)
    assert found.value == pytest.approx(churn(predicted).mean())


def test_interval_of_churn_is_defined_at_the_edges() -> None:
    assert interval(np.zeros((1, 9), int)).reason == "not defined: 1 of the 3 runs that it needs"
    assert interval(np.zeros((3, 0), int)).reason == "not defined: 0 of the 2 images that it needs"
    same = interval(np.zeros((3, 9), int))
    assert (same.value, same.low, same.high) == (0.0, None, None)
    assert same.reason == "not defined: no two runs disagree on any image"
    two = interval(np.array([[0] * 10, [1] * 4 + [0] * 6]))
    assert (two.value, two.low, two.high) == (0.4, None, None)
    assert two.reason.endswith("one pair says nothing of how runs differ")


def test_js_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.dirichlet([0.5, 1, 2], 200), rng.dirichlet([0.5, 1, 2], 200)
    found = js_distance(first, second)
    np.testing.assert_allclose(found, jensenshannon(first, second, 2, axis=1), atol=1e-9)
    np.testing.assert_array_equal(found, js_distance(second, first))
    assert found.max() <= 1
    assert not js_distance(first, first).any()


def test_pairs_are_all_or_a_sample() -> None:
    assert chosen_pairs(4, 6, np.random.default_rng(0)) == list(itertools.combinations(range(4), 2))
    some = chosen_pairs(1000, 45, np.random.default_rng(0))
    assert len(set(some)) == 45
    assert all(a < b < 1000 for a, b in some)
    assert chosen_pairs(1, 45, np.random.default_rng(0)) == []


def test_the_test_sets_part_is_estimated_without_bias() -> None:
    rng = np.random.default_rng(5)
    # Independent errors: an endless test set would leave no variance. Then runs that differ by 0.05 in accuracy.
    rest = [set_part(rng.random((4, 50)) < 0.8).variance_rest for _ in range(4000)]
    assert np.mean(rest) == pytest.approx(0, abs=4 * np.std(rest) / math.sqrt(4000))
    assert min(rest) < 0
    level = np.clip(0.8 + 0.05 * rng.normal(size=(4000, 4, 1)), 0, 1)
    rest = [set_part(rng.random((4, 50)) < one).variance_rest for one in level]
    assert np.mean(rest) == pytest.approx(np.var(level), abs=4 * np.std(rest) / math.sqrt(4000))


@given(arrays.arrays(np.bool_, st.tuples(st.integers(2, 6), st.integers(2, 12))))
def test_the_test_sets_part_is_the_mean_covariance(correct: np.ndarray) -> None:
    part = set_part(correct)
    covariance = np.cov(correct.astype(float), rowvar=False)
    off = covariance[~np.eye(len(covariance), dtype=bool)]
    assert part.variance_rest == pytest.approx(off.mean(), abs=1e-12)
    assert part.sd == pytest.approx(correct.mean(axis=1).std(ddof=1), abs=1e-12)
    assert part.sd_independent == pytest.approx(math.sqrt(np.trace(covariance)) / len(covariance), abs=1e-12)
    again = set_part(correct[::-1])
    assert again.variance_rest == part.variance_rest
    assert again.sd == part.sd


def test_the_share_of_the_committed_study_is_pooled() -> None:
    """Of four cells of three runs, with their sums, not the median of their own shares, which reads 0.31."""
    study = load_study(Path(__file__).parents[2] / "results/cpu-real-subset/collected")
    (task,) = (name for name in study.tasks if "CIFAR-10" in study.title(name))
    labels, cells, own = study.labels(task), [], []
    for group in study.groups("nd", task=task):
        right = np.array([p.predicted_classes(run) == labels for run in study.stream(task, group.rows)])
        cells.append(set_part(right))
        own.append(finite_test_share(cells[-1:]).value)
    found = finite_test_share(cells)
    assert np.median(own) == pytest.approx(0.31, abs=0.005)
    assert (found.value, found.low, found.high) == pytest.approx((0.24, 0.07, 0.53), abs=0.005)
    draft = Draft(study)
    draft.agreements = [(group, SimpleNamespace(n=part.n, test_set=part))  # type: ignore[misc]
                        for group, part in zip(study.groups("nd", task=task), cells, strict=True)]  # fmt: skip
    frame = share_table(draft).frame
    row = frame[(frame["task"] == task) & (frame["arm"] == "nd")].iloc[0]
    assert (row["cells"], row["df"], row["share"]) == (4, 8, pytest.approx(0.24, abs=0.005))
    assert frame[frame["task"] != task]["remark"].eq("not defined: no cell with two runs and two images").all()


def test_no_share_is_above_all_of_it() -> None:
    """On cracks a run's errors balance: its accuracy varies less than by chance, and uncut the share would be 3.4."""
    study = load_study(Path(__file__).parents[2] / "results/cpu-real-subset/collected")
    labels = study.labels("cracks")
    cells = [set_part(np.array([p.predicted_classes(run) == labels for run in study.stream("cracks", group.rows)]))
             for group in study.groups("nd", task="cracks")]  # fmt: skip
    share = finite_test_share(cells)
    assert (share.value, share.low, share.high) == (1, pytest.approx(0.91, abs=0.005), 1)


def test_binary_calibrated_errors_give_the_closed_form() -> None:
    # Jordan 2023: of calibrated binary predictions the independent part has the SD sqrt(error / (2 n)).
    rng = np.random.default_rng(3)
    chance = rng.beta(0.5, 0.5, 20_000)
    labels = rng.random(20_000) < chance
    predicted = rng.random((40, 20_000)) < chance
    part, error = set_part(predicted == labels), np.mean(predicted != labels)
    assert part.sd_independent == pytest.approx(math.sqrt(error / (2 * 20_000)), rel=0.03)


def test_recall_of_a_class_without_examples_is_not_defined() -> None:
    found = recall_by_class(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    assert found[:2].tolist() == [0.5, 1.0]
    assert math.isnan(found[2])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    spec = Synthetic(tasks=("digits",), optimizers=("adam",), seeds=(0, 42), n_test=50, epochs=1, spread=0.4)
    root = tmp_path_factory.mktemp("hidden")
    params, layout = write_study(root, spec)
    rows = "".join(f"{i},picture {i},{'train' if i < 3 else 'test'},0,0,g\n" for i in range(53))
    (layout.prepared("digits") / "ids.csv").write_text("index,id,split,label,class,group\n" + rows)
    collect(params, layout, code_digest=CODE)
    return load_study(layout.collected)


def test_a_group_is_measured_as_its_runs_say(study: Study) -> None:
    group, one = next(pair for pair in Draft(study).agreements if pair[0].cell.seed == 42)
    labels = study.labels("digits")
    probabilities = study.probabilities("digits")[group.rows].astype(float)
    predicted = probabilities.argmax(axis=2)
    pairs = list(itertools.combinations(range(3), 2))
    flips = np.mean([predicted[a] != predicted[b] for a, b in pairs], axis=0)
    np.testing.assert_allclose(one.flips, flips)
    assert one.churn == pytest.approx(flips.mean())
    assert one.interval.low <= one.churn <= one.interval.high
    accuracy = (predicted == labels).mean()
    assert one.ensemble_gain == pytest.approx((probabilities.mean(axis=0).argmax(axis=1) == labels).mean() - accuracy)
    js = [jensenshannon(probabilities[a], probabilities[b], 2, axis=1).mean() for a, b in pairs]
    assert one.js_distance == pytest.approx(np.mean(js), abs=1e-6)
    assert one.recalls[1, 3] == pytest.approx((predicted[1] == labels)[labels == 3].mean())


def test_images_that_flip_most_are_named(study: Study) -> None:
    draft = Draft(study)
    frame = {table.name: table.frame for table in tables(draft)}["flips"]
    total = np.mean([found.flips for _, found in draft.agreements], axis=0)
    best = int(total.argmax())
    assert frame.loc[0, "image"] == f"picture {best + 3}"
    assert frame.loc[0, "flips"] == pytest.approx(total[best])
    assert frame["flips"].is_monotonic_decreasing
    wrong = np.concatenate([study.probabilities("digits")[group.rows].argmax(2) for group in study.groups("nd")])
    assert frame.loc[0, "wrong"] == pytest.approx((wrong != study.labels("digits"))[:, best].mean())


def test_probabilities_that_are_no_numbers_name_the_run(study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "collected")
    path = tmp_path / "collected/digits/probabilities.npy"
    values = np.load(path)
    values[2, 7, 0] = np.nan
    np.save(path, values)
    with pytest.raises(MismatchError, match="digits/adam/0/nd_2 is complete, but"):
        _ = Draft(load_study(tmp_path / "collected")).agreements


def test_ids_of_another_test_set_are_refused(study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "collected")
    as_an_older_version_collected(tmp_path / "collected")
    path = tmp_path / "collected/digits/ids.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(MismatchError, match="49 ids"):
        load_study(tmp_path / "collected").image_ids("digits")


heads = arrays.arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=st.floats(0.125, 8))


@given(heads, st.sampled_from([1e-20, 3.0]))
def test_distance_of_heads_is_that_of_all_pairs(found: np.ndarray, factor: float) -> None:
    brute = [
        np.linalg.norm(a - b) / ((np.linalg.norm(a) + np.linalg.norm(b)) / 2)
        for a, b in itertools.combinations(found, 2)
    ]
    assert w.mean_relative_distance(found).value == pytest.approx(np.mean(brute), abs=1e-7)
    assert w.mean_relative_distance(factor * found).value == pytest.approx(np.mean(brute), abs=1e-7)


def test_heads_without_distance_or_way_are_defined() -> None:
    same = np.array([[0.1, 0.7, -0.3]] * 3, np.float32)
    assert w.mean_relative_distance(same).value == 0
    assert w.mean_relative_distance(same[:1]).reason == "not defined: a pair needs two runs"
    assert w.mean_relative_distance(np.zeros((2, 2))).reason == "not defined: two heads are all zeros"
    assert w.mean_relative_distance(np.array([[np.nan], [1.0]])).reason == "not defined: a weight is not finite"
    assert "moved" in w.displacement_cosine(same, same).reason
    assert w.displacement_cosine(same + np.eye(3), same)[0] == pytest.approx(0, abs=1e-6)
    assert "not moved" in w.displacement_cosine(same + np.diag([1, 1, 0]), same).reason
