"""Learning rates by the thesis's formulas, optimizers as PyTorch has them."""

from __future__ import annotations

import subprocess

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.warm.start import REAL
from torch import nn

from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.schema import Adam, AdamW, Cosine, Exponential, Sgd, Step
from twinrun.training.optimizers import build_optimizer, learning_rate, set_learning_rate


@given(st.integers(0, 400), st.floats(1e-5, 1), st.floats(0.1, 1), st.floats(0.5, 50))
def test_exponential(epoch: int, lr: float, factor: float, period: float) -> None:
    settings = Adam(lr=lr, schedule=Exponential(kind="exponential", factor=factor, period_epochs=period))
    assert learning_rate(settings, epoch) == pytest.approx(lr * factor ** (epoch / period), rel=1e-8)


def test_thesis_values() -> None:
    """Equations 2.1 and 2.2 with the thesis's constants."""
    halving = Adam(lr=0.001, schedule=Exponential(kind="exponential", factor=0.5))
    assert [learning_rate(halving, t) for t in range(4)] == [0.001, 0.0005, 0.00025, 0.000125]
    cosine = Sgd(lr=0.001, schedule=Cosine(kind="cosine", t_max_epochs=32))
    assert [learning_rate(cosine, t) for t in (0, 16, 32, 64)] == [0.001, 0.0005, 0.0, 0.001]


def test_cosine_is_pytorchs() -> None:
    settings = Sgd(lr=0.1, schedule=Cosine(kind="cosine", t_max_epochs=10, lr_min=0.01))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01)
    for epoch in range(25):
        assert learning_rate(settings, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-7)
        optimizer.step()
        reference.step()


def test_steps_and_a_warm_up_are_pytorchs() -> None:
    """A rate that rises for three epochs and drops after two and five more; the warm-up of any schedule is the same."""
    settings = Sgd(lr=0.1, schedule=Step(kind="step", factor=0.2, epochs=[2, 5], warmup_epochs=3))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    dropping = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 5], gamma=0.2)
    reference = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, dropping], milestones=[3])
    for epoch in range(12):
        assert learning_rate(settings, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-7), epoch
        optimizer.step()
        reference.step()
    cosine = Adam(lr=0.1, schedule=Cosine(kind="cosine", t_max_epochs=4, warmup_epochs=3))
    assert [learning_rate(cosine, epoch) for epoch in range(4)] == [0.025, 0.05, 0.075, 0.1]


def test_rates_have_nine_digits() -> None:
    settings = Sgd(lr=0.1, schedule=Cosine(kind="cosine", t_max_epochs=7))
    for epoch in range(7):
        rate = learning_rate(settings, epoch)
        assert rate == float(f"{rate:.9g}")


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        (
            Sgd(lr=0.1, momentum=0.9, weight_decay=0.01, schedule=Cosine(kind="cosine", t_max_epochs=9)),
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, foreach=False),
        ),
        (
            AdamW(lr=0.1, beta1=0.8, weight_decay=0.2, schedule=Cosine(kind="cosine", t_max_epochs=9)),
            lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.8, 0.999), weight_decay=0.2, foreach=False),
        ),
        (
            Adam(lr=0.1, beta1=0.8, beta2=0.99, weight_decay=0.01, schedule=Cosine(kind="cosine", t_max_epochs=9)),
            lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.99), weight_decay=0.01, foreach=False),
        ),
    ],
)
def test_steps_agree_with_the_plain_implementation(settings, plain) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(6, 4), nn.Linear(6, 4)
    theirs.load_state_dict(ours.state_dict())
    optimizer, reference = build_optimizer(settings, ours), plain(theirs.parameters())
    assert optimizer.defaults["fused"], "the same bits on every processor"
    set_learning_rate(optimizer, 0.05)
    for step in range(5):
        x = torch.rand(8, 6, generator=torch.Generator().manual_seed(step))
        for model, chosen in ((ours, optimizer), (theirs, reference)):
            chosen.zero_grad()
            model(x).square().mean().backward()
            chosen.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        (
            Sgd(lr=0.1, momentum=0.9, weight_decay=0.01, schedule=Cosine(kind="cosine", t_max_epochs=9)),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, fused=True),
        ),
        (
            Adam(lr=0.1, beta1=0.8, beta2=0.99, weight_decay=0.01, schedule=Cosine(kind="cosine", t_max_epochs=9)),
            lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.99), weight_decay=0.01, fused=True),
        ),
    ],
)
def test_the_bits_are_those_of_torchs_own_class(settings, own) -> None:
    """State, gradients and the mode of autograd included."""
    torch.manual_seed(0)
    first, second = nn.Linear(7, 5), nn.Linear(7, 5)
    second.load_state_dict(first.state_dict())
    pairs = [(first, build_optimizer(settings, first)), (second, own(second.parameters()))]
    for _ in range(5):
        images = torch.randn(4, 7)
        for model, optimizer in pairs:
            optimizer.zero_grad(set_to_none=True)
            model(images).pow(2).sum().backward()
            optimizer.step()
            assert torch.is_grad_enabled()
    (_, ours), (_, theirs) = pairs
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for mine, other in zip(ours.state_dict()["state"].values(), theirs.state_dict()["state"].values(), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(mine[key]), torch.as_tensor(other[key])) for key in mine)
    assert ours.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]


def test_a_run_imports_neither_torchs_compiler_nor_torchvision(study: Layout, params: Params) -> None:
    """Each takes longer than all else that a run imports besides torch."""
    code = """import torch; import sys
from pathlib import Path
from twinrun.study.layout import Layout
from twinrun.study.params import read_params
from twinrun.training.loop import Options, train_run
params = read_params(Path("params.yaml"))
train_run(params, params.find("shapes/adam/0/det_1"), Layout(), "c" * 64, Options(device="cpu", stop_after=1))
print([name for name in ("torch._dynamo", "torchvision", "pandas", "scipy", "timm") if name in sys.modules])"""
    said = subprocess.check_output([REAL, "-c", code], cwd=study.root, text=True)
    assert said == "[]\n"
