"""Layers and features: brute force, closed forms, properties, and simulation of the sampling error."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.collect.synthetic import CODE, LAYERS, Synthetic, write_study

from twinrun.collect.collect import LAYER_RUNS, collect
from twinrun.collect.study import Study, load_study
from twinrun.report import style as drawing
from twinrun.report.sections.figures_layers import layers_figure
from twinrun.report.sections.tables_features import features_table
from twinrun.report.sections.tables_layers import depths_table, layers_checkpoints_table, layers_frame, layers_table
from twinrun.stats.weights import PARTS, debiased_cka, measures, sampling_error
from twinrun.study.errors import MismatchError
from twinrun.training.recording import SAMPLED, positions

shapes = st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 70))
several = arrays.arrays(np.float64, shapes, elements=st.floats(0.125, 8))


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one - two) / ((np.linalg.norm(one) + np.linalg.norm(two)) / 2))


@settings(max_examples=40)
@given(several, st.sampled_from([0, PARTS]))
def test_measures_are_those_of_all_pairs(values: np.ndarray, parts: int) -> None:
    found = measures(values, values * 0.25 - 1, parts)
    _, layers, count = values.shape
    assert found.distance.shape == (layers, 1 + parts)
    for layer in range(layers):
        pairs = list(itertools.combinations(values[:, layer], 2))
        assert found.distance[layer, 0] == pytest.approx(np.mean([distance(*pair) for pair in pairs]), abs=1e-6)
        assert found.cosine[layer, 0] == pytest.approx(np.mean([cosine(*pair) for pair in pairs]), abs=1e-9)
        ways = itertools.combinations(values[:, layer] * 0.75 + 1, 2)
        assert found.displacement[layer, 0] == pytest.approx(np.mean([cosine(*pair) for pair in ways]), abs=1e-9)
        if parts and count > parts:
            rest = np.delete(values[:, layer], np.arange(3, count, parts), axis=1)
            left = np.mean([distance(*pair) for pair in itertools.combinations(rest, 2)])
            assert found.distance[layer, 4] == pytest.approx(left, abs=1e-6)


@settings(max_examples=40)
@given(several, st.sampled_from([1e-20, 0.5, 3.0, 1e15]))
def test_scale_and_order_of_runs_do_not_matter(values: np.ndarray, factor: float) -> None:
    plain, start = measures(values, values - 1), values - 1
    for other in (measures(values * factor, start * factor), measures(values[::-1], start[::-1])):
        for one, two in zip(plain, other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)
    # Each run by a scale of its own: the cosine alone does not see it.
    scales = np.arange(1, len(values) + 1)[:, None, None]
    np.testing.assert_allclose(measures(values * scales, None).cosine, plain.cosine, atol=1e-9)


@settings(max_examples=20)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 50)), elements=st.floats(0.125, 8, width=32))
)
def test_identical_runs_are_at_no_distance(layer: np.ndarray) -> None:
    found = measures(np.stack([layer] * 4), np.stack([layer - 1] * 4), PARTS)
    assert (found.distance[:, 0] == 0).all()
    assert (found.cosine[:, 0] == 1).all()
    assert (found.displacement[:, 0] == 1).all()


def test_one_unit_in_the_last_place_is_a_distance() -> None:
    one = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    two = one.copy()
    two[7] = np.nextafter(two[7], np.float32(9))
    expected = distance(one.astype(float), two.astype(float))
    assert 0 < expected < 1e-8
    assert measures(np.stack([one, two])[:, None], None).distance.item() == pytest.approx(expected, abs=1e-12)


def test_what_has_no_value_is_not_a_number() -> None:
    zero, one = np.zeros((2, 1, 5)), np.ones((2, 1, 5))
    assert np.isnan(measures(zero, None)).all()
    assert np.isnan(measures(one[:1], one[:1])).all()
    found = measures(one, one)
    assert (found.distance.item(), found.cosine.item()) == (0, 1)
    assert np.isnan(found.displacement).all(), "nothing has moved"
    mixed = measures(np.concatenate([zero[:1], one[:1]]), None)
    assert mixed.distance.item() == 2
    assert np.isnan(mixed.cosine).all()
    assert np.isnan(measures(one * np.inf, None).distance).all()


def layer_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Two runs of one layer: heavy-tailed, its channels of different size, the second with noise of its own."""
    channels = np.repeat(rng.lognormal(0, 0.6, count // 64), 64)
    start = rng.normal(size=count)
    steps = rng.normal(size=(2, count)) * 0.4 + rng.standard_t(6, size=count)
    return channels * (start + steps), channels * start  # type: ignore[return-value]


def test_the_sampling_error_covers_the_whole_layer() -> None:
    """Over many layers: the interval of two standard errors around the sample's value holds that of the tensor."""
    rng, count, inside, ratios = np.random.default_rng(5), 64 * 160, [], []
    for trial in range(400):
        values, start = layer_of(rng, count)
        whole = measures(values[:, None], np.stack([start] * 2)[:, None])
        places = positions(f"trial {trial}", count)
        part = measures(values[:, None, places], np.stack([start[places]] * 2)[:, None], PARTS)
        for exact, found in zip(whole, part, strict=True):
            error = sampling_error(found[0], SAMPLED, count)
            # 2.04: the t quantile of PARTS - 1 degrees of freedom.
            inside.append(abs(found[0, 0] - exact[0, 0]) <= 2.04 * error)
            ratios.append((found[0, 0] - exact[0, 0]) / error)
    inside = np.reshape(inside, (-1, 3)).mean(axis=0)
    # Channels differ in size, and the sample has its share of each: the error is rather over- than understated.
    assert (inside >= 0.93).all(), inside
    assert (np.std(np.reshape(ratios, (-1, 3)), axis=0) > 0.7).all(), "not a useless one either"


def test_no_sampling_error_where_all_is_recorded() -> None:
    assert sampling_error(np.array([1.0]), 10, 10) == 0
    assert math.isnan(sampling_error(np.array([1.0, math.nan, 2.0]), 10, 20))


def hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimator, written out (Song et al. 2012, eq. 5)."""
    n, ones = len(kernel), np.ones(len(kernel))
    first, second = kernel - np.diag(np.diag(kernel)), other - np.diag(np.diag(other))
    total = np.trace(first @ second) + (ones @ first @ ones) * (ones @ second @ ones) / ((n - 1) * (n - 2))
    return float((total - 2 / (n - 2) * ones @ first @ second @ ones) / (n * (n - 3)))


def direct_cka(one: np.ndarray, two: np.ndarray) -> float:
    first, second = one @ one.T, two @ two.T
    return hsic(first, second) / math.sqrt(hsic(first, first) * hsic(second, second))


@settings(max_examples=30)
@given(st.integers(4, 30), st.integers(1, 40), st.integers(0, 2**32))
def test_cka_is_the_ratio_of_unbiased_estimators(images: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, images, length)) + 3
    assert debiased_cka(np.stack([one, two])).mean == pytest.approx(direct_cka(one, two), abs=1e-8)


def test_cka_does_not_see_rotation_scale_and_shift() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3, 50, 20))
    features[1:] += features[0]
    rotation = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    plain = debiased_cka(features)
    changed = np.stack([features[0] @ rotation, 7 * features[1], features[2] + rng.normal(size=20)])
    assert debiased_cka(changed)[:3] == pytest.approx(plain[:3], abs=1e-10)
    assert debiased_cka(features[::-1])[:3] == pytest.approx(plain[:3], abs=1e-11)
    assert debiased_cka(np.stack([features[0], features[0] @ rotation])).mean == pytest.approx(1, abs=1e-10)
    assert debiased_cka(np.stack([features[0]] * 3).astype(np.float32))[:3] == (1, 1, 1)
    # Not invariant to a linear map: it must not be.
    assert debiased_cka(np.stack([features[0], features[0] * np.arange(1, 21) ** 2])).mean < 0.9


def biased_cka(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one - one.mean(axis=0), two - two.mean(axis=0)
    first, second = one @ one.T, two @ two.T
    return float((first * second).sum() / math.sqrt((first * first).sum() * (second * second).sum()))


def test_cka_of_independent_features_is_about_zero_and_the_biased_one_is_not() -> None:
    rng = np.random.default_rng(2)
    pairs = rng.normal(size=(200, 2, 12, 60))
    found = [debiased_cka(pair).mean for pair in pairs]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(200)
    assert abs(np.mean(found)) < 0.03
    assert min(found) < 0
    assert np.mean([biased_cka(*pair) for pair in pairs]) > 0.7


@pytest.mark.parametrize(
    ("features", "why"),
    [
        (np.ones((1, 9, 2)), "two runs"),
        (np.ones((2, 3, 2)), "four images"),
        (np.ones((2, 9, 2)), "the same for all images"),
        (np.full((2, 9, 2), np.nan), "not finite"),
    ],
)
def test_cka_that_is_not_defined_says_why(features: np.ndarray, why: str) -> None:
    found = debiased_cka(features)
    assert math.isnan(found.mean)
    assert why in found.reason


def build(root: Path, **changes: object) -> Study:
    plain = {"tasks": ("digits",), "seeds": (0, 42), "runs": ("nd_1", "nd_2", "nd_3"), "epochs": 2, "n_test": 12}
    params, layout = write_study(root, Synthetic(**{**plain, **changes}))  # type: ignore[arg-type]
    collect(params, layout, code_digest=CODE)
    return load_study(layout.collected)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return build(tmp_path_factory.mktemp("layers"))


def test_the_tables_hold_every_layer_and_checkpoint(study: Study) -> None:
    frame = layers_frame(study)
    assert frame["layer"].unique().tolist() == [*LAYERS, "head"]
    assert len(frame) == 2 * 3 * (len(LAYERS) + 1)
    last = layers_table(study, frame).frame
    assert set(last["epoch"]) == {2}
    row = last[(last["optimizer"] == "sgd") & (last["layer"] == "deep.0.weight")].iloc[0]
    assert (row["parameters"], row["recorded"], row["cells"], row["pairs"]) == (4608, 1024, 2, 6)
    # From the arrays themselves: one cell after the other, then the control.
    begin = sum(min(1024, math.prod(LAYERS[name])) for name in list(LAYERS)[:3])
    values = np.array(study.layers("digits")[:, 2, begin : begin + 1024]).astype(float)
    start = np.array(study.layers("digits")[:, 0, begin : begin + 1024]).astype(float)
    cells = [range(6, 9), range(9, 12)]
    pairs = [pair for cell in cells for pair in itertools.combinations(cell, 2)]
    assert row["layer_distance"] == pytest.approx(np.mean([distance(values[i], values[j]) for i, j in pairs]))
    assert row["layer_cosine"] == pytest.approx(np.mean([cosine(values[i], values[j]) for i, j in pairs]))
    moved = values - start
    assert row["layer_displacement"] == pytest.approx(np.mean([cosine(moved[i], moved[j]) for i, j in pairs]))
    assert row["seeds_distance"] == pytest.approx(distance(values[6], values[9]))
    assert row["distance_percent"] == pytest.approx(100 * row["layer_distance"] / row["seeds_distance"])
    assert 0 < row["layer_distance_se"] < 0.1 * row["layer_distance"]
    whole = last[last["layer"].isin(["conv1.weight", "head"])]
    assert (whole["layer_distance_se"] == 0).all()


def test_layers_without_a_value_say_why(study: Study) -> None:
    frame = layers_checkpoints_table(study, layers_frame(study)).frame.set_index(["optimizer", "layer", "epoch"])
    assert "all zeros" in frame.loc[("sgd", "deep.0.bias", 2), "remark"]
    assert math.isnan(frame.loc[("sgd", "deep.0.bias", 2), "layer_distance"])
    first = frame.loc[("adam", "conv1.weight", 0)]
    assert (first["layer_distance"], first["layer_cosine"]) == (0, 1)
    assert "nothing has moved" in first["remark"]
    assert first["seeds_distance"] > 1
    # Before training all normalization is one: seeds share it, and there is no ratio.
    assert "seeds do not differ" in frame.loc[("adam", "norm.weight", 0), "remark"]


def test_thirds_of_the_network(study: Study) -> None:
    frame = layers_frame(study)
    depths = depths_table(study, frame).frame
    mine = depths[(depths["optimizer"] == "adam") & (depths["epoch"] == 2)].set_index("depth")
    assert mine.index.tolist() == ["early", "middle", "late", "head"]
    assert mine["layers"].tolist() == [1, 1, 1, 1]
    last = frame[(frame["optimizer"] == "adam") & (frame["epoch"] == 2)].set_index("layer")
    for depth, layer in (("early", "conv1.weight"), ("late", "deep.1.weight"), ("head", "head")):
        assert mine.loc[depth, "layer_distance"] == last.loc[layer, "layer_distance"]


def test_the_figure_says_what_it_shows(study: Study, tmp_path: Path) -> None:
    drawn = layers_figure(study, depths_table(study, layers_frame(study)).frame)
    assert "n = 6 pairs" in drawn.caption
    assert "Handwritten digits 0.0" in drawn.alt
    (tmp_path / "a").mkdir()
    first = drawing.save(drawn, tmp_path / "a")
    again = drawing.save(layers_figure(study, depths_table(study, layers_frame(study)).frame), tmp_path)
    assert [(tmp_path / "a" / name).read_bytes() for name in first] == [(tmp_path / n).read_bytes() for n in again]
    nothing = layers_figure(study, depths_table(study, layers_frame(study)).frame.iloc[:0])
    assert nothing.alt.startswith("Not available")


def test_frozen_layers_and_one_seed(tmp_path: Path) -> None:
    frame = layers_frame(build(tmp_path, frozen=True, seeds=(7,)))
    row = frame[(frame["layer"] == "conv1.weight") & (frame["epoch"] == 2)].iloc[0]
    assert (row["layer_distance"], row["layer_cosine"]) == (0, 1)
    assert math.isnan(row["layer_displacement"])
    assert "not moved in some run" in row["remark"]
    assert "fewer than two seeds" in row["remark"]


def test_no_more_than_the_first_replicates_are_kept(tmp_path: Path) -> None:
    runs = tuple(f"nd_{number}" for number in range(1, LAYER_RUNS + 5))
    diverged = frozenset({"digits/sgd/7/nd_3"})
    study = build(tmp_path, runs=runs, seeds=(7,), optimizers=("sgd",), epochs=2, diverged=diverged)
    assert study.layer_rows("digits") == [row for row in range(LAYER_RUNS + 1) if row != 2]
    assert set(layers_frame(study)["pairs"]) == {LAYER_RUNS * (LAYER_RUNS - 1) // 2}
    assert set(features_table(study).frame["pairs"]) == {LAYER_RUNS * (LAYER_RUNS - 1) // 2, 0}


def test_the_table_of_features(study: Study, tmp_path: Path) -> None:
    frame = features_table(study).frame
    assert frame["comparison"].unique().tolist() == ["nd, same seed", "nd_1, other seeds"]
    twins, seeds = frame[frame["optimizer"] == "sgd"].to_dict("records")
    features = np.array(study.features("digits"))
    pairs = [pair for cell in (range(6, 9), range(9, 12)) for pair in itertools.combinations(cell, 2)]
    expected = [direct_cka(*features[list(pair)].astype(float)) for pair in pairs]
    assert twins["cka_mean"] == pytest.approx(np.mean(expected))
    assert (twins["cka_min"], twins["cka_max"]) == pytest.approx((min(expected), max(expected)))
    assert (twins["images_recorded"], twins["features"], twins["pairs"], twins["cells"]) == (12, 8, 6, 2)
    assert seeds["cka_mean"] == pytest.approx(direct_cka(*features[[6, 9]].astype(float)))
    none = features_table(build(tmp_path, feature_images=0))
    assert none.frame.empty
    assert "Not recorded: Handwritten digits" in " ".join(none.notes)


def test_an_older_collection_has_no_layers(study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "collected")
    info = study.info["tasks"]["digits"]
    for key in ("layers", "layer_rows", "features_shape"):
        info = {name: value for name, value in info.items() if name != key}
    older = load_study(tmp_path / "collected")
    older.info["tasks"]["digits"] = info
    table = layers_table(older, layers_frame(older))
    assert table.frame.empty
    assert "not recorded" in " ".join(table.notes)
    assert depths_table(older, pd.DataFrame(columns=layers_frame(older).columns)).frame.empty


@pytest.mark.parametrize("name", ["layers", "features"])
def test_damaged_arrays_are_named(name: str, study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "collected")
    path = tmp_path / f"collected/digits/{name}.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(MismatchError, match=rf"{name}\.npy: shape"):
        load_study(tmp_path / "collected")
