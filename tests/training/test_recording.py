"""What a run keeps: the head whole, fair samples of other tensors, features of the same images; no bit moved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from twinrun.collect.artifacts import read_features, read_weights
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.training import batches, loop, recording
from twinrun.training.loop import Options, train_run
from twinrun.training.randomness import permutation
from twinrun.training.recording import SAMPLED, describe_weights, positions, recorded_weights

CODE = "c" * 64


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(8, 64, 3)  # 4,608 weights and a bias
        self.norm = nn.BatchNorm2d(64)
        self.last = nn.Linear(64, 20)
        self.last.tied = self.last.weight  # 1,280 weights under two names, both of the head


def test_the_head_and_small_tensors_are_whole_and_others_sampled() -> None:
    model = Net()
    kept = recorded_weights(model, 3)
    assert list(kept) == [f"00003/{name}" for name, _ in model.named_parameters(remove_duplicate=False)]
    flat = model.body.weight.detach().flatten()
    torch.testing.assert_close(kept["00003/body.weight"], flat[positions("body.weight", flat.numel())], rtol=0, atol=0)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name != "body.weight":
            assert torch.equal(kept[f"00003/{name}"], parameter)
    before = kept["00003/norm.weight"].clone()
    with torch.no_grad():
        model.norm.weight.add_(1)
    assert torch.equal(kept["00003/norm.weight"], before), "a copy, not a view"
    facts = json.loads(describe_weights(model))
    assert facts["head"] == ["last.weight", "last.bias", "last.tied"]
    assert next(iter(facts["shapes"].items())) == ("body.weight", [64, 8, 3, 3])
    assert facts["shapes"]["last.tied"] == [20, 64]


@pytest.mark.parametrize("count", [SAMPLED + 1, 1500, 4608, 2_359_296, 150_000_001])
def test_positions_are_one_in_each_part_and_the_same_in_every_run(count: int) -> None:
    found = positions("some.weight", count)
    assert found is not None
    assert len(found) == SAMPLED
    parts = np.arange(SAMPLED + 1) * (count / SAMPLED)
    assert (np.floor(parts[:-1]) <= found).all()
    assert (found <= parts[1:]).all()
    assert found[-1] < count
    positions.cache_clear()
    assert np.array_equal(positions("some.weight", count), found)
    assert not np.array_equal(positions("other.weight", count), found)
    assert positions("some.weight", SAMPLED) is None


def test_each_coordinate_is_drawn_equally_often() -> None:
    """Also where the parts are hardly longer than one coordinate, and straddle two."""
    count, draws = 1500, 4000
    seen = np.bincount(np.concatenate([positions(f"draw {index}", count) for index in range(draws)]), minlength=count)
    expected = draws * SAMPLED / count
    # Each part's draw is a Bernoulli trial for the coordinate: its variance is at most that of a Poisson count.
    assert abs(seen - expected).max() < 6 * np.sqrt(expected)
    assert seen.mean() == pytest.approx(expected)


@pytest.fixture
def recorded(study: Layout) -> Params:
    path = study.root / "params.yaml"
    text = path.read_text()
    assert "heads_every: 2" in text
    path.write_text(text.replace("heads_every: 2", "heads_every: 3, features: 10"))
    return read_params(path)


def test_recording_moves_no_bit(params: Params, recorded: Params, study: Layout) -> None:
    plain = train_run(params, params.find("shapes/sgd/0/det_1"), study, CODE, Options(device="cpu"))
    folder = study.run(params.find("shapes/sgd/0/det_1"))
    assert read_features(folder) is None
    with np.load(folder / "predictions.npz") as arrays:
        before = arrays["probabilities"]
    more = train_run(recorded, recorded.find("shapes/sgd/0/det_1"), study, CODE, Options(device="cpu"))
    assert (more.fingerprints, more.metrics) == (plain.fingerprints, plain.metrics)
    assert more.params_digest != plain.params_digest
    with np.load(folder / "predictions.npz") as arrays:
        assert np.array_equal(arrays["probabilities"], before)
        assert arrays["features"].shape[0] == 10


def test_features_are_what_the_head_is_given(recorded: Params, study: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the images in all batches, the first of one among them; the head after each third epoch and the last."""
    monkeypatch.setattr(batches, "EVALUATION_BATCH", int(np.sort(permutation(64, "features")[:10])[2]))
    run = recorded.find("shapes/adam/7/det_1")
    train_run(recorded, run, study, CODE, Options(device="cpu"))
    features, weights = read_features(study.run(run)), read_weights(study.run(run))
    assert features is not None
    assert weights.epochs == (0, 3, 4)
    inputs = features.shape[1]
    matrix, bias = weights.heads[-1][: 4 * inputs].reshape(4, inputs), weights.heads[-1][4 * inputs :]
    logits = features @ matrix.T + bias
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    with np.load(study.run(run) / "predictions.npz") as arrays:
        rows = np.sort(permutation(len(arrays["labels"]), "features")[:10])
        expected = arrays["probabilities"][rows]
    np.testing.assert_allclose(exponents / exponents.sum(axis=1, keepdims=True), expected, rtol=1e-4)


def test_weights_read_back_in_the_networks_order(params: Params, study: Layout) -> None:
    run = params.find("shapes/sgd/0/det_1")
    train_run(params, run, study, CODE, Options(device="cpu"))
    weights = read_weights(study.run(run))
    assert weights.epochs == (0, 2, 4)
    assert next(iter(weights.layers)) == "conv1.weight"
    assert not {"linear.weight", "linear.bias"} & set(weights.layers)
    assert weights.head_shapes["bias"] == [4]
    assert weights.samples.shape == (3, sum(layer["recorded"] for layer in weights.layers.values()))
    assert any(layer["recorded"] == SAMPLED < np.prod(layer["shape"]) for layer in weights.layers.values())
    with safe_open(study.run(run) / "weights.safetensors", framework="numpy") as file:
        first = file.get_tensor("00004/conv1.weight").ravel()
    assert np.array_equal(weights.samples[-1][: first.size], first)


def test_a_resumed_run_has_the_same_weights(
    recorded: Params, study: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = recorded.find("shapes/sgd/0/det_1")
    whole = train_run(recorded, run, Layout(study.root, tmp_path / "whole"), CODE, Options(device="cpu"))

    def stop(row: dict[str, object], epochs: int) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    eager = Options(device="cpu", checkpoint_seconds=0.0, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(recorded, run, study, CODE, eager)
    calls: list[int] = []

    def counted(model: nn.Module, epoch: int) -> dict[str, torch.Tensor]:
        calls.append(epoch)
        return recording.recorded_weights(model, epoch)

    monkeypatch.setattr(loop, "recorded_weights", counted)
    assert train_run(recorded, run, study, CODE, Options(device="cpu")) == whole
    assert calls == [4], "the earlier checkpoints come from the interrupted run"
