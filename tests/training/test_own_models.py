"""Networks from outside: the contract is held, what breaks it is named with file and line, and streams reach them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import REPOSITORY
from torch import nn

from twinrun.study.errors import InputError
from twinrun.study.files import sha256_file
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.study.records import Record
from twinrun.study.schema_model import ModelSpec
from twinrun.training.fingerprint import fingerprint
from twinrun.training.loop import Options, train_run
from twinrun.training.models import build_model, head
from twinrun.training.randomness import Streams, take_over_dropout

NET = """
import torch
from torch import nn
from torch.nn import functional
from .blocks import body

class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.logits = nn.Linear(3 * width, classes)
        self.body = body(width)
        self.unused = nn.Linear(2, 2)
    def forward(self, x):
        return self.logits(functional.dropout(self.body(x).mean((2, 3)), 0.25, self.training))

def build(classes, width=4):
    return Net(classes, width)
"""
BLOCKS = "from torch import nn\ndef body(width):\n    return nn.Conv2d(3, 3 * width, 3, padding=1)\n"


def write_models(root: Path, net: str = NET) -> Path:
    (root / "models").mkdir(exist_ok=True)
    (root / "models/net.py").write_text(net)
    (root / "models/blocks.py").write_text(BLOCKS)
    return root


def own(**keys: object) -> ModelSpec:
    return ModelSpec.model_validate({"factory": "models.net:build", "head": "logits"} | keys)


def test_a_factory_gets_its_arguments_and_may_import_its_neighbours(tmp_path: Path) -> None:
    model = build_model(own(arguments={"width": 5}), 7, write_models(tmp_path))
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    assert head(model)[0] == "logits"
    assert model.training
    assert not list(tmp_path.rglob("*.pyc"))  # DVC watches the folder


def test_the_check_leaves_the_model_as_it_was_made(tmp_path: Path) -> None:
    blocks = "nn.Sequential(nn.Conv2d(3, 3 * width, 3, padding=1), nn.BatchNorm2d(3 * width))"
    write_models(tmp_path)
    (tmp_path / "models/blocks.py").write_text(f"from torch import nn\ndef body(width):\n    return {blocks}\n")
    assert build_model(own(), 4, tmp_path).get_buffer("body.1.num_batches_tracked") == 0


def test_each_study_folder_has_its_own_models(tmp_path: Path) -> None:
    for width in (2, 3):
        root = tmp_path / str(width)
        root.mkdir()
        model = build_model(own(), 4, write_models(root, NET.replace("width=4", f"width={width}")))
        assert head(model)[1].in_features == 3 * width


def test_initialization_comes_from_the_init_stream(tmp_path: Path, params: Params) -> None:
    def initial(run_id: str) -> str:
        Streams.of(params.find(run_id)).seed_initialization()
        return fingerprint(build_model(own(), 4, write_models(tmp_path)))

    assert initial("shapes/sgd/0/det_1") == initial("shapes/adam/0/nd_2") != initial("shapes/sgd/7/det_1")


@pytest.mark.parametrize(
    ("net", "keys", "part"),
    [
        ("import nothing_like_it", {}, r"net\.py, line 1: ModuleNotFoundError"),
        ("def build(classes:", {}, "SyntaxError"),
        ("def other(classes): pass", {}, r"net\.py has no function build"),
        ("def build(classes):\n    return 1 / 0", {}, r"net\.py, line 2: ZeroDivisionError"),
        ("def build(classes): return 3", {}, "it returned int"),
        (
            "import torch\n" + NET.replace("Net(classes, width)", "torch.compile(Net(classes, width))"),
            {},
            "compiled by",
        ),
        (NET.replace("return Net(", "net = Net(") + "    net.body.compile()\n    return net", {}, "compiled by"),
        (NET, {"arguments": {"depth": 3}}, "TypeError: build.. got an unexpected keyword argument 'depth'"),
        (NET.replace("nn.Linear(3 * width", "nn.Linear(width"), {}, r"net\.py, line 14: RuntimeError"),
        (NET.replace("return self.logits", "return None and self.logits"), {}, "gave NoneType, not logits"),
        (NET.replace("(2, 3)), 0.25, self.training))", "(2, 3)), 0.25, self.training)[:1])"), {}, r"gave \(1, 4\)"),
        (
            NET.replace("return self.logits(", "return (3, 4) if self.training else self.logits("),
            {},
            r"gave, in training, tuple, not logits.*\n.*aux_logits=False",
        ),
        (
            NET.replace("return self.logits(", "return 1 / 0 if self.training else self.logits("),
            {},
            r"in training: .*net\.py, line 14: ZeroDivisionError",
        ),
        (NET.replace("Net(classes, width)", "Net(classes, width).bfloat16()"), {}, "RuntimeError|bfloat16"),
        (NET, {"head": "fc"}, r"model\.head fc is no linear layer with 4 outputs"),
        (NET, {"head": None}, r"its last linear layer \(unused\).*\n.*logits \(4\), unused \(2\)"),
    ],
)
def test_what_breaks_the_contract_is_named(net: str, keys: dict[str, object], part: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=part):
        build_model(own(**keys), 4, write_models(tmp_path, net))


def with_own_model(study: Layout, runs: str) -> Params:
    write_models(study.root)
    text = (study.root / "params.yaml").read_text()
    text = text.replace("{name: preactresnet18, width: 0.0625}", '{factory: "models.net:build", head: logits}')
    (study.root / "params.yaml").write_text(text.replace("[det_1, det_2, nd_1, nd_2]", runs))
    return read_params(study.root / "params.yaml")


def train(params: Params, study: Layout, label: str) -> Record:
    run = params.find(f"shapes/sgd/0/{label}")
    return train_run(params, run, study, "0" * 64, Options(device="cpu"))


def test_a_model_that_draws_from_the_global_generators_repeats(study: Layout) -> None:
    params = with_own_model(study, "[det_1, det_2, dropout_1, init_1]")
    records = {label: train(params, study, label) for label in params.grid.runs}
    assert records["det_1"].fingerprints == records["det_2"].fingerprints
    assert records["dropout_1"].initial_fingerprint == records["det_1"].initial_fingerprint
    assert len({record.final_fingerprint for record in records.values()}) == 3


def test_an_interrupted_run_of_such_a_model_ends_the_same(study: Layout) -> None:
    params = with_own_model(study, "[det_1, det_2]")
    whole = train(params, study, "det_1")
    epochs = 0

    class StopError(Exception):
        pass

    def stop(row: dict[str, object], total: int) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 3:
            raise StopError

    run = params.find("shapes/sgd/0/det_2")
    with pytest.raises(StopError):
        train_run(params, run, study, "0" * 64, Options(device="cpu", checkpoint_seconds=0, progress=stop))
    assert train(params, study, "det_2").fingerprints == whole.fingerprints


def test_an_edit_in_models_changes_the_digest_of_runs_with_a_factory_alone(study: Layout) -> None:
    params = with_own_model(study, "[det_1]")
    before = {run.id: params.run_digest(run) for run in params.runs}
    (study.root / "models/blocks.py").write_text(BLOCKS + "# a comment\n")
    (study.root / "models/README.md").write_text("not code")
    changed = read_params(study.root / "params.yaml")
    assert {run.id for run in changed.runs if changed.run_digest(run) != before[run.id]} == {
        run.id for run in params.runs if run.task == "shapes"
    }
    assert changed.grid_digest != params.grid_digest


def test_a_factory_whose_file_is_not_there(study: Layout) -> None:
    with_own_model(study, "[det_1]")
    shutil.rmtree(study.root / "models")
    with pytest.raises(InputError, match=r"model\.factory models\.net:build: models/net\.py: no such file"):
        read_params(study.root / "params.yaml")


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"name": "resnet18", "factory": "models.net:build"}, "give either name or factory"),
        ({}, "give either name or factory"),
        ({"name": "resnet19"}, "did you mean 'resnet18'"),
        ({"name": "timm:hf-hub:someone/model"}, "is not known"),
        ({"name": "resnet18", "arguments": {"a": 1}}, "arguments and head are for a factory"),
        ({"factory": "models.net:build", "width": 0.5}, "width is for the project's own models"),
        ({"factory": "net.py:build"}, "String should match pattern"),
        ({"factory": "models.net:build", "arguments": {"a": float("nan")}}, "Out of range float"),
    ],
)
def test_bad_keys(keys: dict[str, object], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        ModelSpec.model_validate(keys)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_models_of_timm(name: str) -> None:
    arguments = {"img_size": 32, "patch_size": 8} if name.startswith("vit") else {"drop_rate": 0.1}
    model = build_model(ModelSpec(name=f"timm:{name}", arguments=arguments), 5, image_size=32)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert head(model)[1].out_features == 5

    def initial() -> str:
        Streams("0", "0", "0", "0").seed_initialization()
        return fingerprint(build_model(ModelSpec(name=f"timm:{name}", arguments=arguments), 5, image_size=32))

    assert initial() == initial()


def test_pretrained_weights_of_timm_come_from_a_file(tmp_path: Path) -> None:
    import timm

    theirs = timm.create_model("resnet18", pretrained=False)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    digest = sha256_file(tmp_path / "w.pth")
    model = build_model(ModelSpec(name="timm:resnet18", pretrained="w.pth", pretrained_sha256=digest), 2, tmp_path)
    assert torch.equal(model.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)


def test_dropout_of_timm_is_taken_over() -> None:
    arguments = {"proj_drop_rate": 0.1, "img_size": 32}
    model = build_model(ModelSpec(name="timm:vit_tiny_patch16_224", arguments=arguments), 2, image_size=32)
    assert len(take_over_dropout(model)) > 10


def test_timm_names_and_timm_itself_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"has no such model\n  near: .*resnet18"):
        build_model(ModelSpec(name="timm:resnet18x"), 2)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="timm is not installed"):
        build_model(ModelSpec(name="timm:resnet18"), 2)


def test_the_example_network(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(REPOSITORY / "examples/own_task/net.py", tmp_path / "models")
    model = build_model(ModelSpec(factory="models.net:build", arguments={"channels": 4}), 3, tmp_path, 16)
    assert len(take_over_dropout(model)) == 1
    assert isinstance(head(model)[1], nn.Linear)
