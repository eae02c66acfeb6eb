"""What the keys of checkpoints say of their parts: of plain PyTorch, Lightning, Hugging Face's Trainer and timm."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from twinrun.twins.contents import read_contents
from twinrun.twins.nested import differences
from twinrun.twins.parts import explained, part_of


@pytest.mark.parametrize(
    ("file", "path", "part"),
    [
        ("last.pt", "['model']['layer1.0.batch_norm.weight']", "weights"),
        ("last.pt", "['optimizer']['state'][0]['exp_avg']", "optimizer"),
        ("last.pt", "['optimizer']['param_groups'][0]['lr']", "scheduler"),
        ("last.pt", "['rng']['numpy'][1]", "generator"),
        ("last.pt", "['generator']['net.0.bias']", "weights"),  # of a GAN
        ("last.pt", "['sampler']['order'][3]", "data order"),
        ("last.pt", "['sampler']['position']", "data position"),
        ("epoch_3.pt", "['w']", None),
        ("epoch=3-step=12.ckpt", "['loops']['fit_loop']['epoch_progress']['total']['ready']", "data position"),
        ("epoch=3-step=12.ckpt", "['optimizer_states'][0]['state'][1]['step']", "optimizer"),
        ("epoch=3-step=12.ckpt", "['lr_schedulers'][0]['last_epoch']", "scheduler"),
        ("epoch=3-step=12.ckpt", "['state_dict']['a']", "weights"),
        ("checkpoint-8/rng_state.pth", "['cpu']", "generator"),
        ("checkpoint-8/scheduler.pt", "['_step_count']", "scheduler"),
        ("checkpoint-8/trainer_state.json", "['global_step']", "data position"),
        ("checkpoint-8/trainer_state.json", "['log_history'][0]['loss']", "results"),
        ("checkpoint-8/model.safetensors", "['classifier.weight']", "weights"),
        ("checkpoint-1.pth.tar", "['amp_scaler']['scale']", "optimizer"),
        ("metrics.json", "['accuracy']", "results"),
        ("notes.txt", "", None),
    ],
)
def test_keys_say_what_they_belong_to(file: str, path: str, part: str | None) -> None:
    assert part_of(file, path) == part


def test_nothing_is_explained_by_what_is_no_checkpoint() -> None:
    assert explained([], ["weights"]) == ""


def test_generators_and_arguments_in_a_checkpoint_are_read(tmp_path: Path) -> None:
    arguments = argparse.Namespace(lr=0.1, data="images", betas=(0.9, 0.99))
    state = {"rng": np.random.default_rng(0).bit_generator.state, "old": np.random.RandomState(0).get_state()}
    torch.save({**state, "args": arguments}, tmp_path / "a.pt")
    arguments.lr = 0.2
    torch.save({**state, "args": arguments}, tmp_path / "b.pt")
    (first, how), (second, _) = (read_contents(tmp_path / name) for name in ("a.pt", "b.pt"))
    assert how == "torch file (weights_only=True)"
    assert [str(place) for place in differences(first, second)] == ["['args']['lr']: 0.1 against 0.2"]
