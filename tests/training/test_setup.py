"""The set-up of a run: the loss that it trains by."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.conftest import draw, write_packed

from twinrun.study.errors import InputError
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.study.schema import Recipe
from twinrun.training import setup
from twinrun.training.loop import Options, train_run
from twinrun.training.setup import set_conditions, training_loss

CUTS = ["whole", "cut"]
CLASSES = ("common", "rare")
LABELS = torch.tensor([0, 0, 0, 1])


def recipe(weights: str) -> Recipe:
    return Recipe.model_validate(
        {"epochs": 1, "batch_size": 2, "heads_every": 1, "metric": "f1", "class_weights": weights}
    )


def test_balanced_weights_count_each_class_alike() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    of_common, of_rare = math.log1p(math.exp(-2)), math.log1p(math.exp(-1))
    batch = torch.tensor([0, 1])
    plain = training_loss(recipe("none"), LABELS, CLASSES)(logits, batch)
    assert plain.item() == pytest.approx((of_common + of_rare) / 2)
    weighted = training_loss(recipe("balanced"), LABELS, CLASSES)(logits, batch)
    # 4 examples in 2 classes: 4 / (2 * 3) for one of the three, 4 / (2 * 1) for the only one.
    assert weighted.item() == pytest.approx((2 / 3 * of_common + 2 * of_rare) / (2 / 3 + 2))


def test_a_class_without_training_examples_is_named() -> None:
    with pytest.raises(InputError, match="class 'rare' has no training example to weigh"):
        training_loss(recipe("balanced"), torch.tensor([0, 0]), CLASSES)


def test_a_run_trains_by_it(study: Layout) -> None:
    images, labels = draw(128, 2, 1, 16, 2)
    write_packed(study.root / "prepared" / "cuts", images, np.where(np.arange(128) % 4 == 1, 0, labels), 64, CUTS)
    path = study.root / "params.yaml"
    before = read_params(path)
    path.write_text(path.read_text().replace("      metric: f1\n", "      metric: f1\n      class_weights: balanced\n"))
    params = read_params(path)
    run, other = params.find("cuts/sgd/0/det_1"), params.find("shapes/sgd/0/det_1")
    assert params.run_digest(run) != before.run_digest(run)
    assert params.run_digest(other) == before.run_digest(other)
    plain, weighted = (train_run(one, run, study, "c" * 64, Options(device="cpu")) for one in (before, params))
    assert plain.initial_fingerprint == weighted.initial_fingerprint
    assert plain.fingerprints[0] != weighted.fingerprints[0]


def test_a_run_keeps_freed_memory(study: Layout, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(setup, "keep_freed_memory", lambda: calls.append(None))
    set_conditions(params, params.find("shapes/sgd/0/det_1"), study, "cpu")
    assert len(calls) == 1


def test_freed_memory_is_kept_for_the_next_step() -> None:
    code = """
import resource, torch
from twinrun.training.setup import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 << 20).fill_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = min(page_faults() for _ in range(4))
keep_freed_memory()
print(plain, min(page_faults() for _ in range(20)))  # not the first: the heap grows
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    assert plain >= 32  # pages of 2 MiB at the largest
    assert kept < plain / 8
