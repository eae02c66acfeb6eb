"""Networks: pre-activation blocks, sizes, torchvision's function at full width, initialization from the stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from twinrun.study.errors import InputError
from twinrun.study.files import sha256_file
from twinrun.study.grid import Run
from twinrun.study.schema import ModelSpec
from twinrun.training.fingerprint import fingerprint
from twinrun.training.models import PreActBlock, PreActResNet18, build_model, head
from twinrun.training.randomness import Streams

NAMES = ["preactresnet18", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "resnet50"]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def normalized(x: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over the batch in each channel."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


@pytest.mark.parametrize(("incoming", "outgoing", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2), (4, 8, 2)])
def test_a_block_adds_its_shortcut(incoming: int, outgoing: int, stride: int) -> None:
    block = PreActBlock(incoming, outgoing, stride)
    x = torch.rand(3, incoming, 8, 8, generator=torch.Generator().manual_seed(1))
    activated = normalized(x).relu()
    inner = functional.conv2d(activated, block.conv1.weight, stride=stride, padding=1)
    branch = functional.conv2d(normalized(inner).relu(), block.conv2.weight, padding=1)
    plain = incoming == outgoing and stride == 1
    skip = x if plain else functional.conv2d(activated, block.shortcut.weight, stride=stride)  # type: ignore[union-attr]
    torch.testing.assert_close(block(x), branch + skip)


def test_the_network_is_its_stem_blocks_mean_and_head() -> None:
    model = PreActResNet18(classes=5, width=0.125).eval()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    seen = model.conv1(x)
    shapes = []
    for block in model.blocks:
        seen = block(seen)
        shapes.append(tuple(seen.shape[1:]))
    assert shapes == [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2 + [(32, 4, 4)] * 2 + [(64, 2, 2)] * 2
    torch.testing.assert_close(model(x), model.linear(seen.flatten(2).mean(2)))
    assert count(build_model(ModelSpec(name="preactresnet18"), 10)) == 11_171_146


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions(name: str) -> None:
    ours, theirs = build_model(ModelSpec(name=name), 7), getattr(torchvision.models, name)(num_classes=7)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [16, 48])
def test_thin_models_take_any_size(name: str, size: int) -> None:
    model = build_model(ModelSpec(name=name, width=0.1), 3)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 3)
    assert count(model) < count(build_model(ModelSpec(name=name), 3)) / 10
    assert head(model)[1].out_features == 3


@pytest.mark.parametrize("name", NAMES)
def test_initialization_comes_from_the_init_stream_alone(name: str, golden_fingerprint: Callable[[str], None]) -> None:
    def initial(run: Run) -> str:
        Streams.of(run).seed_initialization()
        return fingerprint(build_model(ModelSpec(name=name, width=0.1), 3))

    reference = initial(Run("t", "sgd", 0, "det", 1))
    golden_fingerprint(reference)
    torch.rand(100)
    assert initial(Run("t", "adam", 0, "nd", 5)) == reference
    assert initial(Run("t", "sgd", 0, "shuffle", 1)) == reference
    assert initial(Run("t", "sgd", 1, "det", 1)) != reference
    assert initial(Run("t", "sgd", 0, "init", 1)) != reference
    assert initial(Run("t", "sgd", 0, "init", 1)) != initial(Run("t", "sgd", 0, "init", 2))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_body_is_loaded_and_the_head_is_ours(suffix: str, tmp_path) -> None:
    theirs = torchvision.models.resnet18()
    if suffix == ".pth":
        torch.save(theirs.state_dict(), tmp_path / "w.pth")
    else:
        from safetensors.torch import save_file

        save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    digest = sha256_file(tmp_path / f"w{suffix}")
    spec = ModelSpec(name="resnet18", pretrained=f"w{suffix}", pretrained_sha256=digest)
    model = build_model(spec, 2, tmp_path)
    assert torch.equal(model.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    assert model.fc.weight.shape == (2, 512)


def test_pretrained_weights_that_do_not_fit_are_named(tmp_path) -> None:
    other = ModelSpec(name="resnet18", pretrained="w.pth", pretrained_sha256="0" * 8)
    with pytest.raises(InputError, match=r"w\.pth: no such file"):
        build_model(other, 2, tmp_path)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
    digest = sha256_file(tmp_path / "w.pth")
    with pytest.raises(InputError, match=f"its SHA-256 is {digest}, the params say 00000000"):
        build_model(other, 2, tmp_path)
    with pytest.raises(InputError, match=r"w\.pth does not fit the model: bn1\.bias"):
        build_model(other.model_copy(update={"pretrained_sha256": digest[:8]}), 2, tmp_path)


def test_a_file_that_holds_no_weights_is_refused(tmp_path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"conv1.weight": 3}, tmp_path / "number.pth")
    for name, words in (("text.pth", ""), ("text.safetensors", ""), ("module.pth", "Weights only"),
                        ("list.pth", "holds a list"), ("number.pth", "does not fit the model")):  # fmt: skip
        spec = ModelSpec(name="resnet18", pretrained=name, pretrained_sha256=sha256_file(tmp_path / name))
        with pytest.raises(InputError, match=f"{name}.*{words}"):
            build_model(spec, 2, tmp_path)


def test_model_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(InputError, match="no linear layer"):
        head(nn.Conv2d(3, 3, 1))
