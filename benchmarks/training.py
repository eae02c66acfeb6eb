"""The training loop against a bare PyTorch loop, alternating; and the share of fingerprinting.

python benchmarks/training.py [--rounds 5] [--epochs 3]       # in a study folder after `twinrun prepare`
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

from twinrun.study.pins import clean_environment, leaks

if leaks(os.environ):
    os.execve(sys.executable, [sys.executable, *sys.argv], clean_environment())

import torch
from torch.nn import functional

from twinrun.data.packed import load_packed
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.training.fingerprint import fingerprint
from twinrun.training.loop import evaluate, train_epoch
from twinrun.training.models import build_model
from twinrun.training.optimizers import build_optimizer
from twinrun.training.recording import recorded_weights
from twinrun.training.setup import assemble, set_conditions


class Ours:
    """`train_epoch` as a run calls it, with augmentation, streams, recorded weights and fingerprint."""

    def __init__(self, params: Params, task: str, optimizer: str) -> None:
        run = next(r for r in params.runs if (r.task, r.optimizer, r.arm) == (task, optimizer, "det"))
        self.setup = assemble(set_conditions(params, run, Layout(), "cpu"))
        self.fingerprinting = self.all = 0.0

    def epoch(self, number: int) -> None:
        begin = time.process_time()
        train_epoch(self.setup, number)
        recorded_weights(self.setup.model, number)
        middle = time.process_time()
        fingerprint(self.setup.model)
        self.fingerprinting += time.process_time() - middle
        self.all += time.process_time() - begin

    def evaluate(self) -> None:
        begin = time.process_time()
        evaluate(self.setup.model, self.setup.batches)
        self.all += time.process_time() - begin


class Bare:
    """What one writes without this project: float tensors in memory, a random order, forward, backward, step."""

    def __init__(self, params: Params, task: str, optimizer: str) -> None:
        spec = params.tasks[task]
        packed = load_packed(Layout().prepared(task), params.data_params_digest(task))
        self.images = torch.from_numpy(packed.images[: packed.n_train].copy()).float().div(255).sub(0.5).div(0.25)
        self.images = self.images.expand(-1, 3, -1, -1).contiguous()
        self.labels = torch.from_numpy(packed.labels[: packed.n_train].copy())
        self.model = build_model(spec.model, len(packed.classes))
        self.optimizer = build_optimizer(spec.optimizer(optimizer), self.model)
        self.batch_size = spec.recipe.batch_size

    def epoch(self, number: int) -> None:
        self.model.train()
        for index in torch.randperm(len(self.labels)).split(self.batch_size):
            loss = functional.cross_entropy(self.model(self.images[index]), self.labels[index])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="epochs in each half of a round")
    arguments = parser.parse_args()
    params = read_params(Path("params.yaml"))
    print(f"{arguments.rounds} rounds of {arguments.epochs} epochs each, alternating, one core, processor time")
    print("task\toptimizer\tours / bare: median (min to max)\tfingerprinting's share of training and evaluation")
    for task in params.grid.tasks:
        for optimizer in params.grid.optimizers:
            ours, bare = Ours(params, task, optimizer), Bare(params, task, optimizer)
            ours.epoch(0), bare.epoch(0)  # warm-up
            ours.all = ours.fingerprinting = 0.0
            ratios = []
            for number in range(arguments.rounds):
                seconds = {}
                # Who comes first changes from round to round: a drift of the machine cancels.
                for name, loop in (("ours", ours), ("bare", bare))[:: 1 if number % 2 else -1]:
                    begin = time.process_time()
                    for epoch in range(arguments.epochs):
                        loop.epoch(1 + number * arguments.epochs + epoch)
                    seconds[name] = time.process_time() - begin
                ratios.append(seconds["ours"] / seconds["bare"])
                for _ in range(arguments.epochs):
                    ours.evaluate()
            share = ours.fingerprinting / ours.all
            spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"{task}\t{optimizer}\t{spread}\t{100 * share:.2f} %", flush=True)


if __name__ == "__main__":
    main()
