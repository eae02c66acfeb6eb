"""Params: each mistake is named with file, key, value and what is allowed; digests cover exactly what a run reads."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import REPOSITORY, TINY

from twinrun.study.errors import InputError
from twinrun.study.grid import ARMS
from twinrun.study.params import Params, read_params
from twinrun.study.yaml12 import load_yaml

MISTAKES = {
    "unknown key": ("batch_size: 32", "batch_size: 32, batchsize: 3", ["shapes.recipe.batchsize", "'batch_size'"]),
    "unknown top key": ("study: tiny", "study: tiny\nstudies: x", ["studies", "'study'"]),
    "missing key": ("metric: accuracy, ", "", ["tasks.shapes.recipe.metric", "missing"]),
    "wrong type": ("epochs: 4", "epochs: four", ["tasks.shapes.recipe.epochs", "'four'", "integer"]),
    "bool for number": ("epochs: 4", "epochs: true", ["tasks.shapes.recipe.epochs", "True"]),
    "out of range": ("momentum: 0.9", "momentum: 1.5", ["tasks.shapes.optimizers.sgd.momentum", "1.5", "less than 1"]),
    "not finite": ("lr: 0.002", "lr: .inf", ["tasks.shapes.optimizers.adam.lr", "inf"]),
    "unknown task": ("[shapes, cuts]", "[shapes, cutz]", ["grid.tasks", "'cutz'", "shapes, cuts"]),
    "unknown optimizer": (
        "[adam, sgd]",
        "[adam, rmsprop]",
        ["grid.optimizers.1", "'rmsprop'", "'adam', 'adamw' or 'sgd'"],
    ),
    "unknown label": ("nd_2]", "free_2]", ["grid.runs", "'free_2'", "det, nd, init"]),
    "label without number": ("nd_2]", "nd]", ["grid.runs", "'nd'", "nd_3"]),
    "label with a leading zero": ("nd_2]", "nd_02]", ["grid.runs", "'nd_02'"]),
    "duplicate seeds": ("seeds: [0, 7]", "seeds: [7, 7]", ["grid.seeds", "7", "twice"]),
    "negative seed": ("seeds: [0, 7]", "seeds: [0, -7]", ["grid.seeds.1", "-7"]),
    "axis value that DVC would collide": (
        "[shapes, cuts]",
        "[shapes, a-b]",
        ["grid.tasks.1", "'a-b'", "small letters"],
    ),
    "task name with a capital": ("  cuts:\n", "  Cuts:\n", ["tasks.Cuts", "small letters"]),
    "key twice": ("  cuts:\n", "  shapes:\n", ["'shapes'", "twice"]),
    "unknown reader": ("reader: cifar10", "reader: cifar", ["tasks.shapes.data", "'cifar10'", "'sdnet2018'"]),
    "unknown schedule key": ("factor: 0.5}", "factr: 0.5}", ["tasks.cuts.optimizers.adam.schedule.factr", "'factor'"]),
    "native noise on a CPU": ("noise: auto", "noise: native", ["execution.noise", "CUDA"]),
    "one CPU's bits on CUDA": ("device: cpu", "device: auto, cpu_bits: this_cpu", ["execution.cpu_bits", "device cpu"]),
    "other schema": ("schema: 1", "schema: 2", ["schema", "2"]),
    "empty list": ("seeds: [0, 7]", "seeds: []", ["grid.seeds", "at least 1"]),
    "pretrained and thin": (
        "width: 0.1}",
        "width: 0.1, pretrained: w, pretrained_sha256: abcdef01}",
        ["tasks.cuts.model", "1.0"],
    ),
    "pretrained without digest": ("width: 0.1}", "pretrained: w.pth}", ["tasks.cuts.model", "pretrained_sha256"]),
    "features too few": ("heads_every: 2", "heads_every: 2, features: 3", ["recipe.features", "4 or more"]),
    "epochs of 400 digits": ("t_max_epochs: 4", f"t_max_epochs: 1{'0' * 400}", ["schedule.t_max_epochs", "less than"]),
    "a number of 5,000 digits": ("seeds: [0, 7]", f"seeds: [0, {'7' * 5000}]", ["not valid YAML", "digits"]),
    "a width beyond any network": ("width: 0.0625", "width: 1.0e+300", ["tasks.shapes.model.width", "or equal to 64"]),
    "networks kept of an arm that is none": (
        "title: Shapes",
        "title: Shapes\n    keep_model: {dte: final}",
        ["tasks.shapes.keep_model", "'dte' is no arm; arms: det, nd"],
    ),
    "networks kept of no arm": (
        "title: Shapes",
        "title: Shapes\n    keep_model: final",
        ["tasks.shapes.keep_model", "got 'final'"],
    ),
    "lists without end": ("seeds: [0, 7]", f"seeds: {'[' * 3000}0{']' * 3000}", ["within each other without end"]),
    "not YAML": ("study: tiny", "study: [tiny", ["not valid YAML"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name: str, tmp_path: Path) -> None:
    good, bad, words = MISTAKES[name]
    text = TINY.read_text()
    assert good in text
    file = tmp_path / "params.yaml"
    file.write_text(text.replace(good, bad, 1))
    with pytest.raises(InputError) as caught:
        read_params(file)
    for word in [str(file), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"reader": "image_folder", "test_share": 0.2}, "test_share and split_seed go together"),
        ({"reader": "cbis_ddsm", "view": "crop", "breast_crop": True}, "breast_crop is for whole mammograms"),
        ({"reader": "cifar10", "nothing": 1}, "unknown key"),
        ({"reader": "sdnet2018", "split_seed": 0}, "this key is missing"),
    ],
)
def test_a_location_names_only_keys_that_the_file_has(data: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Pydantic puts the reader's name into it."""
    content = yaml.safe_load(TINY.read_text())
    content["tasks"]["cuts"]["data"] = {"source": "x.zip", "image_size": 16, **data}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as caught:
        read_params(tmp_path / "params.yaml")
    assert words in str(caught.value)
    assert "tasks.cuts.data" in str(caught.value)
    assert data["reader"] not in str(caught.value)


def test_the_beginning_of_a_long_value_is_shown(tmp_path: Path) -> None:
    content = yaml.safe_load(TINY.read_text())
    content["tasks"]["cuts"]["recipe"]["epochs"] = "epochs" * 100
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"tasks\.cuts\.recipe\.epochs: .*; got 'epochsepochs.{60,80}\.\.\.$"):
        read_params(tmp_path / "params.yaml")


def test_a_missing_block_is_named(tmp_path: Path) -> None:
    content = yaml.safe_load(TINY.read_text())
    del content["tasks"]["cuts"]["recipe"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"tasks\.cuts\.recipe: this key is missing"):
        read_params(tmp_path / "params.yaml")


def test_optimizer_without_settings_is_named(tmp_path: Path) -> None:
    content = yaml.safe_load(TINY.read_text())
    del content["tasks"]["cuts"]["optimizers"]["sgd"]
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"'sgd', which tasks\.cuts\.optimizers lacks"):
        read_params(file)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just text"])
def test_params_that_are_no_mapping(content: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match="is a mapping with the keys schema, study, grid"):
        read_params(file)


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="a folder, a pipe or a device, no file"):
        read_params(tmp_path / kind)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        read_params(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", sorted([REPOSITORY / "params.yaml", *(REPOSITORY / "studies").glob("*.yaml")]))
def test_every_ready_made_study_is_valid(file: Path) -> None:
    assert read_params(file).runs


STUDIES = REPOSITORY / "studies"


@pytest.mark.parametrize(
    ("quick", "whole"), [("quick_thesis", "thesis"), ("quick_sources", "sources"), ("sources", "../params")]
)
def test_a_quick_study_is_its_long_one_on_fewer_epochs(quick: str, whole: str) -> None:
    short, long = (read_params(STUDIES / f"{name}.yaml") for name in (quick, whole))
    assert len(short.runs) < len(long.runs) or quick == "sources"
    assert short.grid.tasks == long.grid.tasks
    for task in short.grid.tasks:
        mine, theirs = short.tasks[task], long.tasks[task]
        assert (mine.data, mine.model, mine.recipe.batch_size) == (theirs.data, theirs.model, theirs.recipe.batch_size)
        assert mine.recipe.epochs <= theirs.recipe.epochs
        for name in ("adam", "sgd"):
            assert mine.optimizer(name).lr == theirs.optimizer(name).lr


def test_the_sources_study_frees_each_source_ten_times() -> None:
    runs = read_params(STUDIES / "sources.yaml").runs
    assert Counter(run.arm for run in runs) == {"det": 6} | {arm: 30 for arm in ARMS if arm != "det"}


def test_thesis_study_has_the_180_runs() -> None:
    runs = read_params(REPOSITORY / "studies" / "thesis.yaml").runs
    assert len(runs) == 180
    assert len({run.cell for run in runs}) == 30
    assert [run.label for run in runs[:6]] == ["det_1", "nd_1", "nd_2", "nd_3", "nd_4", "nd_5"]


def test_every_assumption_of_the_thesis_study_is_marked() -> None:
    """Every line below a task that holds a value says where the value is from, or what it stands for."""
    text = (REPOSITORY / "studies" / "thesis.yaml").read_text()
    for key in ("epochs:", "batch_size:", "heads_every:", "lr:", "momentum:", "weight_decay:", "schedule:"):
        for line in text.splitlines():
            if line.strip().startswith(key) and line.strip() != key:
                assert "stated" in line or "assumed" in line, line


def changed(tmp_path: Path, old: str, new: str) -> Path:
    file = tmp_path / "changed.yaml"
    text = TINY.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


@pytest.mark.parametrize(
    ("old", "new", "reruns"),
    [
        ("title: Shapes", "title: Forms", set()),
        ("seeds: [0, 7]", "seeds: [0, 7, 9]", set()),
        ("device: cpu", "device: auto", set()),
        ("precision: fp32", "precision: tf32", {"shapes/adam", "shapes/sgd", "cuts/adam", "cuts/sgd"}),
        ("device: cpu", "device: cpu, cpu_bits: anywhere", set()),
        ("device: cpu", "device: cpu, cpu_bits: this_cpu", {"shapes/adam", "shapes/sgd", "cuts/adam", "cuts/sgd"}),
        ("epochs: 4", "epochs: 5", {"shapes/adam", "shapes/sgd"}),
        ("width: 0.1}", "width: 0.2}", {"cuts/adam", "cuts/sgd"}),
        ("momentum: 0.9, weight", "momentum: 0.8, weight", {"shapes/sgd"}),
        ("image_size: 16", "image_size: 20", {"cuts/adam", "cuts/sgd"}),
    ],
)
def test_run_digest_covers_what_the_run_reads_and_no_more(old: str, new: str, reruns: set[str], tmp_path: Path) -> None:
    before, after = read_params(TINY), read_params(changed(tmp_path, old, new))
    differing = {f"{r.task}/{r.optimizer}" for r in before.runs if before.run_digest(r) != after.run_digest(r)}
    assert differing == reruns


def test_digest_does_not_depend_on_the_replicate() -> None:
    params = read_params(TINY)
    assert len({params.run_digest(run) for run in params.runs if run.cell == "shapes/sgd/7"}) == 1


def test_whether_pictures_are_shown_is_in_no_digest() -> None:
    """No run and no preparation reads it: saying so must train nothing again."""
    plain = read_params(TINY)
    content = plain.model_dump(by_alias=True)
    for task in content["tasks"].values():
        task["show_images"] = True
    shown = Params.model_validate(content)
    assert all(task.show_images for task in shown.tasks.values())
    assert shown.grid_digest == plain.grid_digest
    assert all(shown.data_params_digest(task) == plain.data_params_digest(task) for task in plain.tasks)
    assert _in_dvc(content) == _in_dvc(plain.model_dump(by_alias=True))


def _in_dvc(content: dict[str, Any]) -> dict[str, Any]:
    """The params on which DVC's stages prepare and train depend, of one task."""
    stages, found = load_yaml((REPOSITORY / "dvc.yaml").read_text())["stages"], {}
    for key in {*stages["prepare"]["params"], *stages["train"]["params"]}:
        value: Any = content
        filled = key.replace("${item.task}", next(iter(content["tasks"]))).replace("${item.optimizer}", "sgd")
        for part in filled.split("."):
            value = value[part]
        found[filled] = value
    return found
