"""Tests that notice when a training is no longer the same: `pytest test_training.py`, with twinrun installed."""

import sys

import torch
from torch import nn


def train() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
    return model


def test_a_function_gives_the_same_weights_twice(twins):
    twins(train)  # called twice with the same seed; every weight is compared to the last bit


def test_it_gives_the_weights_that_it_gave_before(twins, golden_fingerprint):
    golden_fingerprint(twins(train))  # `pytest --twinrun-update` records it, for each platform


def test_a_program_writes_the_same_twice(twins):
    twins([sys.executable, "class_order.py"])  # in copies of this folder, as `twinrun twins`
