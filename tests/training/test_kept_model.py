"""A run's trained network: what is read back predicts what was recorded; another file in its place is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import twinrun
from twinrun.collect.artifacts import read_predictions
from twinrun.collect.collect import collect
from twinrun.data.packed import load_packed
from twinrun.study.errors import IncompleteError, MismatchError, TwinrunError
from twinrun.study.layout import MODEL, RECORD, Layout
from twinrun.study.params import Params, read_params
from twinrun.study.records import prepared_digest, read_record, seal
from twinrun.training.kept_model import load_model
from twinrun.training.loop import Options, train_run

CODE = "c" * 64
OWN = """
from torch import nn
def build(classes, channels=8):
    body = nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels, classes))
"""


def write_params(root: Path, **execution: str) -> Params:
    """Deterministic runs of two tasks, gray and in color, of the project's own and a user's network, are kept."""
    file = root / "params.yaml"
    content = yaml.safe_load(file.read_text())
    content["grid"] |= {"optimizers": ["sgd"], "seeds": [0], "runs": ["det_1", "nd_1"]}
    content["execution"] |= execution
    for task in content["tasks"].values():
        task |= {"keep_model": {"det": "final"}}
        task["recipe"] |= {"epochs": 1}
    content["tasks"]["cuts"]["model"] = {"factory": "models.net:build"}
    (root / "models").mkdir(exist_ok=True)
    (root / "models" / "net.py").write_text(OWN)
    file.write_text(yaml.safe_dump(content))
    return read_params(file)


def train(params: Params, layout: Layout, *ids: str) -> None:
    for run_id in ids:
        train_run(params, params.find(run_id), layout, CODE, Options(device="cpu"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_predicts_what_was_recorded(precision: str, study: Layout) -> None:
    params = write_params(study.root, precision=precision)
    train(params, study, *(run.id for run in params.runs))
    collect(params, study, code_digest=CODE)
    loaded = twinrun.load(study.root)
    before = torch.random.get_rng_state()
    for run in params.runs:
        if run.arm == "nd":
            assert not (study.run(run) / MODEL).exists()
            with pytest.raises(IncompleteError, match="its trained network was not kept"):
                loaded.model(run.id)
            continue
        packed = load_packed(study.prepared(run.task), params.data_params_digest(run.task))
        model = loaded.model(run.id)
        with torch.no_grad():
            logits = model(np.array(packed.images[packed.n_train :]))
        np.testing.assert_array_equal(logits.float().softmax(1).numpy(), loaded.probabilities(run.id))
        assert twinrun.fingerprint(model.network) == read_record(study.run(run)).final_fingerprint
        assert model.classes == packed.classes
        assert not model.training
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture
def kept(study: Layout) -> Path:
    """The record of a run with its network."""
    params = write_params(study.root)
    train(params, study, "cuts/sgd/0/det_1")
    return study.run(params.find("cuts/sgd/0/det_1"))


def rewrite(path: Path, tensors: dict[str, torch.Tensor], **facts: object) -> None:
    with safe_open(path, framework="pt") as file:
        written = json.loads(file.metadata()["twinrun"])
    changed = {name: fact for name, fact in (written | facts).items() if fact is not None}
    save_file(tensors, path, metadata={"twinrun": json.dumps(changed)})


def reseal(folder: Path, sha256: str) -> None:
    body = json.loads((folder / RECORD).read_text())
    body["files"][MODEL] = sha256
    (folder / RECORD).write_text(json.dumps(body | {"seal": seal(body)}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("cut", "not the trained network of a run: "),
        ("pickle", "not the trained network of a run: "),
        ("foreign", "not the trained network of a run: it lacks what a run writes"),
        ("other run", "it is the network of cuts/sgd/0/det_2, not of cuts/sgd/0/det_1"),
        ("edited", "it was changed after it was written"),
        ("other statistics", "it was changed after it was written"),
        ("other shapes", "has another architecture: 0.0.bias differs"),
        ("same shapes", "is not that with which it was trained"),
        ("no word of its code", "it does not say with which code in models/ it was trained"),
        ("edited and sealed", "its fingerprint is "),
    ],
)
def test_another_file_in_its_place_is_named(harm: str, words: str, kept: Path, study: Layout) -> None:
    path = kept / MODEL
    content = path.read_bytes()
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not a map of the file
    weight = tensors | {"3.bias": torch.nextafter(tensors["3.bias"], torch.ones(()))}
    match harm:
        case "cut":
            path.write_bytes(content[:-1])
        case "pickle":
            torch.save(tensors, path)
        case "foreign":
            save_file(tensors, path)
        case "other run":
            rewrite(path, tensors, run="cuts/sgd/0/det_2")
        case "edited" | "edited and sealed":
            rewrite(path, weight)
        case "other statistics":
            rewrite(path, tensors, channel_mean=[0.5])
        case "other shapes":
            rewrite(path, tensors, model={"factory": "models.net:build", "arguments": {"channels": 9}})
        case "no word of its code":
            rewrite(path, tensors, models=None)
        case "same shapes":
            (study.root / "models" / "net.py").write_text(OWN.replace("nn.ReLU", "nn.GELU"))
    if harm in ("edited and sealed", "other shapes", "no word of its code"):
        from twinrun.study.files import sha256_file

        reseal(kept, sha256_file(path))
    with pytest.raises(MismatchError) as caught:
        load_model(kept, study.root)
    assert words in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_network_that_was_not_brought_along(kept: Path, study: Layout) -> None:
    (kept / MODEL).unlink()
    with pytest.raises(IncompleteError, match="no such file") as caught:
        load_model(kept, study.root)
    assert "dvc pull" in caught.value.hint
    with pytest.raises(MismatchError, match="missing, or not the file that the record names"):
        read_record(kept, check_files=True)


def test_wanting_it_later_calls_for_the_run_again_and_not_wanting_it_for_nothing(study: Layout) -> None:
    params = write_params(study.root)
    file = study.root / "params.yaml"
    without = read_params(_written(file, file.read_text().replace("det: final", "det: none")))
    run = without.find("shapes/sgd/0/det_1")
    assert without.run_digest(run) == params.run_digest(run)  # it changes nothing but the files of the record
    data = prepared_digest(study, run.task)
    train(without, study, run.id)
    fingerprints = read_record(study.run(run)).fingerprints
    assert without.state_of(run, study, data, CODE) == "complete"
    assert params.state_of(run, study, data, CODE) == "without its model"
    train(params, study, run.id)
    assert read_record(study.run(run), check_files=True).fingerprints == fingerprints
    assert without.state_of(run, study, data, CODE) == params.state_of(run, study, data, CODE) == "complete"


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_a_collection_without_records_and_one_of_another_run(study: Layout) -> None:
    params = write_params(study.root)
    train(params, study, *(run.id for run in params.runs))
    collect(params, study, code_digest=CODE)
    loaded = twinrun.load(study.root / "collected")
    with pytest.raises(TwinrunError, match="is no run of this study"):
        loaded.model("cuts/sgd/1/det_1")
    run = params.find("cuts/sgd/0/det_1")
    shutil.rmtree(study.run(run))
    with pytest.raises(IncompleteError, match="no such record"):
        loaded.model(run.id)
    params.tasks["cuts"].recipe.augment.__dict__["vertical_flip"] = False
    train(params, study, run.id)
    with pytest.raises(MismatchError, match="not the run that was collected"):
        loaded.model(run.id)


def test_predictions_are_those_of_the_record(kept: Path, study: Layout) -> None:
    """Without a collection, too."""
    params = read_params(study.root / "params.yaml")
    packed = load_packed(study.prepared("cuts"), params.data_params_digest("cuts"))
    with torch.no_grad():
        logits = load_model(kept, study.root)(torch.from_numpy(np.array(packed.images[packed.n_train :])))
    np.testing.assert_array_equal(logits.softmax(1).numpy(), read_predictions(kept)[0])
