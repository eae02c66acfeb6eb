"""The tables of layers and features: from the arrays themselves, and what they say where there is no value."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.collect.synthetic import LAYERS, Synthetic
from tests.report.drafts import draft_of, replace_frame, study_of
from tests.stats.test_layers import cosine, direct_cka, distance

from twinrun.collect.collect import LAYER_RUNS
from twinrun.collect.study import Study, load_study
from twinrun.report import style as drawing
from twinrun.report.sections import features, layers
from twinrun.report.table import Table
from twinrun.study.errors import MismatchError


def build(root: Path, **changes: object) -> Study:
    plain = {"tasks": ("digits",), "seeds": (0, 42), "runs": ("nd_1", "nd_2", "nd_3"), "epochs": 2, "n_test": 12}
    return study_of(root, Synthetic(**{**plain, **changes}))  # type: ignore[arg-type]


def made(study: Study) -> dict[str, Table]:
    return draft_of(study, layers.SECTION, features.SECTION).tables


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return build(tmp_path_factory.mktemp("layers"))


def test_the_tables_hold_every_layer_and_checkpoint(study: Study) -> None:
    tables = made(study)
    frame = tables["layers_checkpoints"].frame
    assert frame["layer"].unique().tolist() == [*LAYERS, "head"]
    assert len(frame) == 2 * 3 * (len(LAYERS) + 1)
    last = tables["layers"].frame
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
    frame = made(study)["layers_checkpoints"].frame.set_index(["optimizer", "layer", "epoch"])
    assert "all zeros" in frame.loc[("sgd", "deep.0.bias", 2), "remark"]
    assert math.isnan(frame.loc[("sgd", "deep.0.bias", 2), "layer_distance"])
    first = frame.loc[("adam", "conv1.weight", 0)]
    assert (first["layer_distance"], first["layer_cosine"]) == (0, 1)
    assert "nothing has moved" in first["remark"]
    assert first["seeds_distance"] > 1
    # Before training all normalization is one: seeds share it, and there is no ratio.
    assert "seeds do not differ" in frame.loc[("adam", "norm.weight", 0), "remark"]


def test_thirds_of_the_network(study: Study) -> None:
    tables = made(study)
    frame, depths = tables["layers_checkpoints"].frame, tables["layers_depth"].frame
    mine = depths[(depths["optimizer"] == "adam") & (depths["epoch"] == 2)].set_index("depth")
    assert mine.index.tolist() == ["early", "middle", "late", "head"]
    assert mine["layers"].tolist() == [1, 1, 1, 1]
    last = frame[(frame["optimizer"] == "adam") & (frame["epoch"] == 2)].set_index("layer")
    for depth, layer in (("early", "conv1.weight"), ("late", "deep.1.weight"), ("head", "head")):
        assert mine.loc[depth, "layer_distance"] == last.loc[layer, "layer_distance"]


def test_the_figure_says_what_it_shows(study: Study, tmp_path: Path) -> None:
    draft = draft_of(study, layers.SECTION)
    (drawn,) = layers.figures(draft)
    assert "n = 6 pairs" in drawn.caption
    assert "Handwritten digits 0.0" in drawn.alt
    (tmp_path / "a").mkdir()
    first = drawing.save(drawn, tmp_path / "a")
    again = drawing.save(layers.figures(draft)[0], tmp_path)
    assert [(tmp_path / "a" / name).read_bytes() for name in first] == [(tmp_path / n).read_bytes() for n in again]
    replace_frame(draft, "layers_depth", draft.frame("layers_depth").iloc[:0])
    assert layers.figures(draft) == []


def test_frozen_layers_and_one_seed(tmp_path: Path) -> None:
    frame = made(build(tmp_path, frozen=True, seeds=(7,)))["layers_checkpoints"].frame
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
    assert set(made(study)["layers"].frame["pairs"]) == {LAYER_RUNS * (LAYER_RUNS - 1) // 2}
    assert set(made(study)["features"].frame["pairs"]) == {LAYER_RUNS * (LAYER_RUNS - 1) // 2, 0}


def test_the_table_of_features(study: Study, tmp_path: Path) -> None:
    frame = made(study)["features"].frame
    assert frame["comparison"].unique().tolist() == ["nd, same seed", "nd_1, other seeds"]
    twins, seeds = frame[frame["optimizer"] == "sgd"].to_dict("records")
    vectors = np.array(study.features("digits"))
    pairs = [pair for cell in (range(6, 9), range(9, 12)) for pair in itertools.combinations(cell, 2)]
    expected = [direct_cka(*vectors[list(pair)].astype(float)) for pair in pairs]
    assert twins["cka_mean"] == pytest.approx(np.mean(expected))
    assert (twins["cka_min"], twins["cka_max"]) == pytest.approx((min(expected), max(expected)))
    assert (twins["images_recorded"], twins["features"], twins["pairs"], twins["cells"]) == (12, 8, 6, 2)
    assert seeds["cka_mean"] == pytest.approx(direct_cka(*vectors[[6, 9]].astype(float)))
    none = made(build(tmp_path, feature_images=0))["features"]
    assert none.frame.empty
    assert "Not recorded: Handwritten digits" in " ".join(none.notes)


def test_an_older_collection_has_no_layers(study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "collected")
    info = study.info["tasks"]["digits"]
    for key in ("layers", "layer_rows", "features_shape"):
        info = {name: value for name, value in info.items() if name != key}
    older = load_study(tmp_path / "collected")
    older.info["tasks"]["digits"] = info
    for name in ("layers", "layers_depth", "layers_checkpoints"):
        table = made(older)[name]
        assert table.frame.empty
        assert "not recorded" in " ".join(table.notes)


@pytest.mark.parametrize("name", ["layers", "features"])
def test_damaged_arrays_are_named(name: str, study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "collected")
    path = tmp_path / f"collected/digits/{name}.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(MismatchError, match=rf"{name}\.npy: shape"):
        load_study(tmp_path / "collected")
