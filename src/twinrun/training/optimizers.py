"""Adam, AdamW and SGD as the params say, and the learning rate of each epoch."""

from __future__ import annotations

import math
from inspect import unwrap
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from twinrun.study import schema


class Eager:
    """torch's own methods of an optimizer without their wrappers, which import all of its compiler at the first call.

    That import takes a third of the time in which a run starts (measured), and nothing here is ever compiled. The bits
    are torch's; hooks of an optimizer, which no run has, are called around `step` as always.
    """

    add_param_group: Any = unwrap(Optimizer.add_param_group)
    zero_grad: Any = unwrap(Optimizer.zero_grad)
    state_dict: Any = unwrap(Optimizer.state_dict)
    load_state_dict: Any = unwrap(Optimizer.load_state_dict)


class EagerAdam(Eager, Adam):
    """Adam."""

    step: Any = torch.no_grad()(unwrap(Adam.step))


class EagerAdamW(Eager, AdamW):
    """AdamW, whose step is Adam's."""

    step: Any = torch.no_grad()(unwrap(AdamW.step))


class EagerSgd(Eager, SGD):
    """SGD."""

    step: Any = torch.no_grad()(unwrap(SGD.step))


def build_optimizer(settings: schema.Adam | schema.Sgd, model: nn.Module) -> Optimizer:
    """The optimizer; fused, because the plain CPU implementation takes its square roots from MKL, whose bits vary."""
    if isinstance(settings, schema.Adam):
        return (EagerAdamW if isinstance(settings, schema.AdamW) else EagerAdam)(
            model.parameters(),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    return EagerSgd(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def learning_rate(settings: schema.Adam | schema.Sgd, epoch: int) -> float:
    """The rate of an epoch, counted from 0 (exponential and cosine: thesis, equations 2.1 and 2.2).

    Rounded to nine digits: the last bits of cos and pow differ between C libraries, and would change every weight.
    """
    schedule = settings.schedule
    if epoch < schedule.warmup_epochs:
        return float(f"{settings.lr * (epoch + 1) / (schedule.warmup_epochs + 1):.9g}")
    epoch -= schedule.warmup_epochs
    if isinstance(schedule, schema.Exponential):
        rate = settings.lr * schedule.factor ** (epoch / schedule.period_epochs)
    elif isinstance(schedule, schema.Step):
        rate = settings.lr * schedule.factor ** sum(epoch >= drop for drop in schedule.epochs)
    else:
        rate = (
            schedule.lr_min
            + (settings.lr - schedule.lr_min) * (1 + math.cos(math.pi * epoch / schedule.t_max_epochs)) / 2
        )
    return float(f"{rate:.9g}")


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Use `rate` from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
