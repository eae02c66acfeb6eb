"""Results from elsewhere: what becomes of them, and the one sentence that names what is wrong with a table."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference
from tests.conftest import REPOSITORY

from twinrun.collect.importing import ImportSummary, Source, import_results, twins_sources
from twinrun.collect.schema import StudyInfo
from twinrun.collect.study import Study, load_study
from twinrun.collect.tables import parse_columns
from twinrun.stats.classification import classification_metrics
from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import write_json

CLASSES = ("cat", "dog", "fox")
EXAMPLES = 12


def long_table(models: tuple[str, ...] = ("a", "b"), seeds: tuple[int, ...] = (1, 2, 3)) -> pd.DataFrame:
    """Probabilities of every run and example, rounded as people round them, in no order."""
    rng = np.random.default_rng(0)
    labels = np.arange(EXAMPLES) % len(CLASSES)
    rows = []
    for model in models:
        for seed in seeds:
            soft = rng.dirichlet(np.ones(3), EXAMPLES)
            soft[np.arange(EXAMPLES), labels] += 1
            for n, values in enumerate(soft / 2):
                named = dict(zip([f"p_{name}" for name in CLASSES], values.round(4), strict=True))
                rows.append({"model": model, "seed": seed, "example": f"i{n}", "label": CLASSES[labels[n]], **named})
    return pd.DataFrame(rows).sample(frac=1, random_state=1).reset_index(drop=True)


def predicted(table: pd.DataFrame) -> pd.DataFrame:
    columns = [f"p_{name}" for name in CLASSES]
    classes = np.array(CLASSES)[table[columns].to_numpy().argmax(axis=1)]
    return table.drop(columns=columns).assign(prediction=classes)


def imported(folder: Path, table: pd.DataFrame | str, name: str = "table.csv", **options: Any) -> ImportSummary:
    path = folder / name
    path.write_text(table if isinstance(table, str) else table.to_csv(index=False))
    return import_results([Source(path)], folder / "collected", study="table", **options)


def study_of(folder: Path, table: pd.DataFrame | str, **options: Any) -> Study:
    imported(folder, table, **options)
    return load_study(folder / "collected")


def test_probabilities_of_runs_in_any_order(tmp_path: Path) -> None:
    table = long_table()
    study = study_of(tmp_path, table)
    assert study.results["id"].tolist() == [f"table/{m}/any/all_{n}" for m in "ab" for n in (1, 2, 3)]
    assert (study.arms, study.free_arm, study.classes("table")) == (["all"], "all", list(CLASSES))
    ids = study.image_ids("table")
    for row, run in study.results.iterrows():
        rows = table[(table["model"] == run["optimizer"]) & (table["seed"] == int(run["run_seed"]))].set_index(
            "example"
        )
        wanted = rows.loc[ids, [f"p_{name}" for name in CLASSES]].to_numpy(np.float32)
        np.testing.assert_array_equal(study.probabilities("table")[row], wanted)
        labels = rows.loc[ids, "label"]
        assert [CLASSES[place] for place in study.labels("table")] == labels.tolist()
        guessed = np.array(CLASSES)[wanted.argmax(axis=1)]
        assert run["accuracy"] == reference.accuracy_score(labels, guessed)
        assert run["f1"] == pytest.approx(reference.f1_score(labels, guessed, average="macro"))
        truth = wanted[np.arange(EXAMPLES), study.labels("table")].astype(float)
        assert run["loss"] == pytest.approx(-np.log(truth).mean())


def test_csv_gzip_npz_and_predicted_classes_say_the_same(tmp_path: Path) -> None:
    table = long_table().sort_values(["model", "seed", "example"])
    first = study_of(tmp_path, table)
    probabilities = table[[f"p_{name}" for name in CLASSES]].to_numpy(np.float32).reshape(6, EXAMPLES, 3)
    names = table["example"].to_numpy(str)[:EXAMPLES]
    arrays: dict[str, NDArray[Any]] = {
        "probabilities": probabilities, "labels": table["label"].to_numpy(str)[:EXAMPLES], "example": names,
        "classes": np.array(CLASSES), "model": np.repeat(["a", "b"], 3), "seed": np.tile([1, 2, 3], 2),
    }  # fmt: skip
    np.savez(tmp_path / "table.npz", **arrays)
    with gzip.open(tmp_path / "table.csv.gz", "wt") as file:
        file.write(table.to_csv(index=False))
    for name in ("table.npz", "table.csv.gz"):
        import_results([Source(tmp_path / name)], tmp_path / name[-3:] / "collected", study="table")
        other = load_study(tmp_path / name[-3:] / "collected")
        pd.testing.assert_frame_equal(other.results, first.results)
        np.testing.assert_array_equal(other.probabilities("table"), first.probabilities("table"))
    (tmp_path / "hard").mkdir()
    hard = study_of(tmp_path / "hard", predicted(table))
    assert hard.results["accuracy"].tolist() == first.results["accuracy"].tolist()
    assert (hard.metrics, hard.records("probabilities")) == (("accuracy", "f1"), False)
    rows = [0, 5]
    for sure, soft in zip(hard.stream("table", rows), first.stream("table", rows), strict=True):
        assert sure.sum(axis=1).tolist() == [1] * EXAMPLES
        assert sure.argmax(axis=1).tolist() == soft.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("change", "arms", "seeds"),
    [
        (lambda table: table.drop(columns="seed").assign(run=table["seed"]), ["all"], ["any"]),
        (lambda table: table.assign(run=table["seed"], seed=7), ["nd"], [7]),
        (lambda table: table.assign(arm="nd"), ["nd"], [1, 2, 3]),
        (lambda table: table.assign(arm=np.where(table["seed"] == 1, "det", "all")), ["det", "all"], [1, "any"]),
        (lambda table: table.assign(seed="fold " + table["seed"].astype(str), arm="nd"), ["nd"], None),
    ],
)
def test_what_is_free_is_read_or_follows_from_the_seeds(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], arms: list[str], seeds: list[Any] | None
) -> None:
    study = study_of(tmp_path, change(long_table()))
    assert sorted(study.arms) == sorted(arms)
    assert study.seeds == (seeds or ["fold 1", "fold 2", "fold 3"])
    assert sum(group.n for group in study.groups(*study.arms)) == 6


def test_metrics_alone_with_a_metric_of_ones_own(tmp_path: Path) -> None:
    table = "arch,width,rs,dice\nunet,8,1,0.81\nunet,8,2,0.83\nunet,16,1,0.85\nunet,16,2,0.86\n"
    study = study_of(tmp_path, table, metric="dice", named=parse_columns(["model=arch,width", "seed=rs"]))
    assert study.optimizers == ["unet 8", "unet 16"]
    assert (study.main_metric("table"), study.metric_pair("table"), study.setting_word) == (
        "dice",
        ("dice",),
        "setting",
    )
    assert study.settings()[0].draws("dice") == [0.81, 0.83]
    assert not study.records("predictions")


def test_one_column_of_probabilities_is_that_of_the_second_class(tmp_path: Path) -> None:
    rows = ["run,example,label,p_1"] + [f"{run},{n},{n % 2},{0.1 + 0.09 * n:.2f}" for run in (1, 2) for n in range(9)]
    study = study_of(tmp_path, "\n".join(rows))
    assert study.classes("table") == ["0", "1"]
    np.testing.assert_allclose(study.probabilities("table")[0][3], [0.63, 0.37], atol=1e-6)
    scores = [0.1 + 0.09 * n for n in range(9)]
    assert study.results["auc"][0] == pytest.approx(reference.roc_auc_score([n % 2 for n in range(9)], scores))


def test_unread_columns_are_named_and_the_positive_class_is_said(tmp_path: Path) -> None:
    table = predicted(long_table()).assign(note="x")
    table = table[table["label"] != "fox"].replace({"prediction": {"fox": "cat"}})
    said = imported(tmp_path, table).sentences
    assert "F1 and AUC are of the class dog, the second" in said
    assert any(line.startswith("not read: note.") for line in said)
    assert "class cat" in " ".join(imported(tmp_path, table, classes=["dog", "cat"]).sentences)


def drop_last(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[:-1]


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame | str], str]] = {
    "a missing pair": (drop_last, r"model ., seed .: no row for example i\d+$"),
    "a row twice": (
        lambda t: pd.concat([t, t.iloc[:1]]),
        r"model ., seed .: more than one row for example i\d+\n.* tables of one run each need it",
    ),
    "two labels": (
        lambda t: t.assign(label=t["label"].where(t.index != 5, "dog" if t["label"][5] != "dog" else "cat")),
        r"table.csv, line \d+: example i\d+ has the label \w+, and \w+ in another row$",
    ),
    "a sum of 2": (lambda t: t.assign(p_cat=0.0), r"line 2: the probabilities sum to 0\.\d+, not to 1 \(68"),
    "logits": (lambda t: t.assign(p_cat=-3.0), r"line 2: -3 is no probability$"),
    "no number": (lambda t: t.to_csv(index=False).replace("0.", "null", 1), "cannot be read"),
    "an empty cell": (lambda t: t.assign(p_dog=t["p_dog"].where(t.index != 3)), r"line 5: p_dog is empty or"),
    "an empty label": (lambda t: t.assign(label=t["label"].where(t.index != 3)), r"line 5: label is empty$"),
    "semicolons": (lambda t: t.to_csv(index=False, sep=";"), r"its columns are parted by semicolons$"),
    "tabs": (lambda t: t.to_csv(index=False, sep="\t"), r"its columns are parted by tabs$"),
    "one example": (
        lambda t: t.rename(columns={"example": "run"}).assign(example="x", label="cat"),
        r"^72 runs of one example$",
    ),
    "a foreign label": (lambda t: t.assign(label="owl"), r"^the label 'owl' is none of the classes cat, dog, fox$"),
    "no label": (lambda t: t.drop(columns="label"), r"table.csv: no column label$"),
    "no example": (lambda t: t.drop(columns="example"), r"table.csv: no column example$"),
    "a column twice": (lambda t: t.to_csv(index=False).replace("seed", "model", 1), "two columns are called 'model'$"),
    "a longer row": (lambda t: t.to_csv(index=False) + "a,1,i0,cat,1,0,0,0\n", r"Expected 7 fields in line 74, saw 8"),
    "longer rows": (lambda t: t.to_csv(index=False).replace("\n", ",1\n").replace(",1\n", "\n", 1), "cannot be read"),
    "an unknown arm": (lambda t: t.assign(arm="baseline"), r"the arm 'baseline' is not known$"),
    "a task that is no folder": (lambda t: t.assign(task="a/b"), r"no task can be called 'a/b'$"),
    "nothing": (lambda t: t.iloc[:0], r"table.csv: no rows$"),
    "an empty file": (lambda t: "", r"table.csv: empty$"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_named_in_one_sentence(tmp_path: Path, name: str) -> None:
    change, sentence = BAD[name]
    with pytest.raises(InputError, match=f"(?m){sentence}") as caught:
        imported(tmp_path, change(long_table()))
    assert "\n" not in caught.value.message
    assert not (tmp_path / "collected").exists()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("model,seed,accuracy\na,1,0.9\na,1,0.9\n", r"line 3: the same as line 2$"),
        ("run,model,accuracy\nx,a,0.9\nx,a,0.8\n", r"line 3: task table, model a, run x again, after line 2$"),
        ("model,seed,accuracy\na,1,91.2\n", r"line 2: accuracy is 91.2$"),
        ("model,seed,accuracy\na,1,\n", r"line 2: accuracy is empty or not finite$"),
        ("model,seed,score\na,1,0.5\n", r"neither predictions nor a metric$"),
    ],
)
def test_bad_tables_of_metrics(tmp_path: Path, table: str, sentence: str) -> None:
    with pytest.raises(InputError, match=f"(?m){sentence}"):
        imported(tmp_path, table)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"labels": np.zeros(3, int)},
            r"no array probabilities, and no predictions\n.*labels; name them so: np.savez\(",
        ),
        ({"predictions": np.zeros((2, 3), int)}, "no array labels$"),
        ({"predictions": np.zeros((2, 3), int), "labels": np.zeros(4, int)}, r"shape \(2, 3\), labels \(4,\)$"),
        (
            {"predictions": np.zeros((2, 3), int), "labels": np.zeros(3, int), "model": np.zeros(3)},
            "model has the shape",
        ),
        ({"probabilities": np.ones((2, 3, 2), int), "labels": np.zeros(3, int)}, "of type int64$"),
        ({"probabilities": np.full((2, 3, 2), np.nan), "labels": np.zeros(3, int)}, "are not finite$"),
        ({"predictions": np.array([[None, 1]]), "labels": np.zeros(2, int)}, "no npz file of plain arrays"),
    ],
)
def test_bad_npz_files(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    np.savez(tmp_path / "table.npz", **arrays)
    with pytest.raises(InputError, match=f"(?m){sentence}"):
        import_results([Source(tmp_path / "table.npz")], tmp_path / "collected", study="table")


def test_parquet_without_its_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="takes the package pyarrow, which is not installed"):
        import_results([Source(tmp_path / "table.parquet")], tmp_path / "collected", study="table")


def test_twins_hand_over_their_predictions(tmp_path: Path) -> None:
    table = predicted(long_table(("x",), (1, 2)))
    twins = []
    for number, seed in ((1, 11), (2, 12)):
        rows = table[table["seed"] == number].sort_values("example")
        folder = tmp_path / "twins" / f"{number:03}" / "out"
        folder.mkdir(parents=True)
        rows[["label", "prediction"]].to_csv(folder / "test.csv", index=False)
        twins.append({"number": number, "seed": seed, "folder": f"{number:03}"})
    write_json(tmp_path / "twins" / "twins.json", {"arm": "all", "twins": twins})
    sources = twins_sources(tmp_path / "twins", "out/*.csv")
    import_results(sources, tmp_path / "collected", study="mine")
    study = load_study(tmp_path / "collected")
    assert study.results[["optimizer", "arm", "run", "run_seed"]].to_numpy().tolist() == [
        ["twins", "all", "twin 1", "11"], ["twins", "all", "twin 2", "12"],
    ]  # fmt: skip
    with pytest.raises(InputError, match="no file called 'none'"):
        twins_sources(tmp_path / "twins", "none")


def test_a_study_of_its_own_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    with pytest.raises(InputError, match="is the folder of a study of its own"):
        imported(tmp_path, long_table())
    (tmp_path / "params.yaml").unlink()
    (tmp_path / "collected").mkdir()
    write_json(tmp_path / "collected" / "study.json", {"schema": 1})
    with pytest.raises(InputError, match="holds a study that was collected from records"):
        imported(tmp_path, long_table())
    (tmp_path / "collected" / "study.json").unlink()
    imported(tmp_path, long_table())
    assert imported(tmp_path, long_table()).runs == 6  # an import takes the place of another
    (tmp_path / "later.csv").write_text("model,seed,accuracy\na,1,0.5\nb,1,0.6\n")
    again = import_results([Source(tmp_path / "later.csv")], tmp_path / "collected", study="mine")
    assert again.sentences[-1] == "replaced the import of table.csv that was there"


def test_a_file_of_ones_own_in_the_folder_is_not_lost(tmp_path: Path) -> None:
    imported(tmp_path, long_table())
    (tmp_path / "collected" / "notes.csv").write_text("years of work")
    with pytest.raises(InputError, match=r"collected: holds notes\.csv, which is not of what is to be written there"):
        imported(tmp_path, long_table())
    assert (tmp_path / "collected" / "notes.csv").read_text() == "years of work"


def test_a_refused_import_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('model,seed,accuracy\na,1,0.5\n"b,1,0.6\n')
    with pytest.raises(InputError, match="a quote that is never closed"):
        import_results([Source(tmp_path / "table.csv")], tmp_path / "new" / "collected", study="mine")
    (tmp_path / "table.csv").write_text("task,model,seed,accuracy\n../x,a,1,0.5\n")
    with pytest.raises(InputError):
        import_results([Source(tmp_path / "table.csv")], tmp_path / "new" / "collected", study="mine")
    assert not (tmp_path / "new").exists()


def test_an_accuracy_that_the_predictions_do_not_have_is_refused(tmp_path: Path) -> None:
    imported(tmp_path, long_table())
    path = tmp_path / "collected" / "results.csv"
    frame = pd.read_csv(path)
    frame.loc[1, "accuracy"] = 0.125
    frame.to_csv(path, index=False)
    with pytest.raises(MismatchError, match=r"table/a/any/all_2 has accuracy 0.125, and .* by its predictions"):
        load_study(tmp_path / "collected")


def test_metrics_that_are_not_defined(tmp_path: Path) -> None:
    none = classification_metrics(np.zeros(4, int), np.array([0, 1, 0, 0]), 2, np.full((4, 2), 0.5))
    assert (none.accuracy, none.f1, none.auc) == (0.75, None, None)
    present = classification_metrics(np.array([0, 0, 1]), np.array([0, 2, 1]), 3)
    assert present.f1 == pytest.approx((2 / 3 + 1) / 2)  # of the two classes that the test set has
    zero = classification_metrics(np.array([0, 1]), np.array([0, 0]), 2, np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert zero.loss is None


def test_the_schema_in_docs_is_that_of_the_code() -> None:
    written = json.loads((REPOSITORY / "docs" / "collected.schema.json").read_text())
    assert written == StudyInfo.model_json_schema(by_alias=True)
