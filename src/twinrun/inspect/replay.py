"""A run trained again step by step: digests after each step, one step back, and that step with every operation seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch

from twinrun.data.packed import load_packed
from twinrun.inspect.tensors import tensor_digest
from twinrun.inspect.trace import AUGMENTATION, BATCH, DRAW, STATE, Event, Tracer
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import Noise as NoiseRecord
from twinrun.training.batches import Batch, Draw, batch_bounds
from twinrun.training.checkpoint import load_checkpoint, model_state, peek_checkpoint, restore_model
from twinrun.training.fingerprint import fingerprint
from twinrun.training.loop import (
    EMULATED,
    begin_epoch,
    choose_device,
    evaluate,
    identify,
    noise_kind,
    train_epoch,
    train_step,
)
from twinrun.training.numerics import set_numerics
from twinrun.training.optimizers import learning_rate, set_learning_rate
from twinrun.training.randomness import Noise
from twinrun.training.setup import assemble
from twinrun.training.workspace import Workspace

_DRAWN = ("row of the crop", "column of the crop", "horizontal flip", "vertical flip")


class Replay:
    """One run of the study, driven from outside; `noise` is what its record says.

    `redraw` and `around` change nothing; tests put a known disturbance there.
    """

    def __init__(self, params: Params, run: Run, layout: Layout, noise: NoiseRecord, device: str) -> None:
        device_name = choose_device(device)
        kind = noise_kind(params, run, device_name)
        self.device = torch.device(device_name)
        packed = load_packed(layout.prepared(run.task), params.data_params_digest(run.task))
        set_numerics(
            deterministic=kind != "native",
            precision=params.execution.precision,
            fill_uninitialized_memory=params.execution.fill_uninitialized_memory,
        )
        entropy = noise.entropy if kind in EMULATED else None
        self.trainee = assemble(params, run, packed, Noise(kind, entropy), self.device, layout.root)
        self.epochs, self.epoch, self.step = params.tasks[run.task].recipe.epochs, 0, 0  # done, and of the epoch
        self.steps = len(batch_bounds(packed.n_train, params.tasks[run.task].recipe.batch_size))  # of an epoch
        self._identity = lambda code: identify(params, run, code, packed.digest, self.device, kind)
        self._checkpoint = Workspace(layout.work(run)).checkpoint
        self.redraw: Callable[[Draw, int, int], Draw] = lambda draw, epoch, step: draw
        self.around: Callable[[int, int], AbstractContextManager[Any]] = lambda epoch, step: nullcontext()
        self._draws: Iterator[Draw] | None = None
        self._before: dict[str, Any] = {}
        self._draw: Draw | None = None
        self._loss = torch.tensor(float("nan"))

    def resume(self, code: str, fingerprints: list[str]) -> int:
        """Go on from the run's own checkpoint, if one is left of these first epochs; the number of epochs it holds."""
        facts = peek_checkpoint(self._checkpoint)
        identity, epoch = self._identity(code), int(facts.get("epoch", 0))
        # A run in progress may have another noise than the record: only its fingerprints tell.
        reached = [row["fingerprint"] for row in facts.get("rows", [])]
        if facts.get("identity") != identity or not 0 < epoch <= len(fingerprints) or reached != fingerprints[:epoch]:
            return 0
        if load_checkpoint(self._checkpoint, identity, self.trainee.model, self.trainee.optimizer) is None:
            return 0
        self.epoch = epoch
        return epoch

    def whole_epoch(self) -> str:
        """Train an epoch as a run does; the fingerprint after it."""
        set_learning_rate(self.trainee.optimizer, learning_rate(self.trainee.settings, self.epoch))
        train_epoch(self.trainee, self.epoch)
        self.epoch += 1
        return fingerprint(self.trainee.model)

    def next_step(self) -> bool:
        """Train one step, and be able to go back; False, and nothing done, where the last epoch has ended."""
        draw = next(self._draws, None) if self._draws else None
        if draw is None:
            if self._draws:
                self.epoch, self.step = self.epoch + 1, 0
            if self.epoch >= self.epochs:
                return False
            set_learning_rate(self.trainee.optimizer, learning_rate(self.trainee.settings, self.epoch))
            begin_epoch(self.trainee, self.epoch)
            self._draws = self.trainee.batches.draws(self.epoch)
            draw = next(self._draws)
        self._draw = draw
        self._before = self._state()
        self.step += 1
        with self.around(self.epoch + 1, self.step):
            self._loss = train_step(self.trainee, self.trainee.batches.make(self._redrawn()))
        return True

    def step_digests(self) -> dict[str, str]:
        """After a step: digests of what was drawn, of the loss, and of every tensor that goes on to the next."""
        drawn = self._redrawn().table
        return {"draw": tensor_digest(drawn), "loss": tensor_digest(self._loss)} | {
            name: tensor_digest(tensor) for name, tensor in chain(self.state().items(), self.gradients().items())
        }

    def rewind(self) -> None:
        """Put everything back to where it was before the last step."""
        self.step -= 1
        before, trainee = self._before, self.trainee
        restore_model(trainee.model, before["model"])
        trainee.optimizer.zero_grad(set_to_none=True)
        trainee.optimizer.state.clear()
        for parameter, state in before["optimizer"].items():
            trainee.optimizer.state[parameter] = {key: _copied(value) for key, value in state.items()}
        for dropout, step in zip(trainee.dropouts, before["dropouts"], strict=True):
            dropout.step = step
        random.setstate(before["python"])
        np.random.set_state(before["numpy"])  # noqa: NPY002 - a user's model may draw from it
        torch.set_rng_state(before["torch"])
        if before["cuda"] is not None:
            torch.cuda.set_rng_state(before["cuda"], self.device)

    def traced_step(self, report: Callable[[Event, Tracer], None]) -> None:
        """The step after `rewind` once more, with an Event for each operation."""
        self.step += 1
        assert self._draw is not None
        with self.around(self.epoch + 1, self.step):
            draw = self._redrawn()
            tracer = Tracer(
                self.trainee.model,
                self.trainee.optimizer,
                draw.table.shape[1],
                lambda event: report(event, tracer),
            )
            for name, tensor in self.state().items():
                tracer.boundary(STATE, STATE, "", {name: tensor})
            tracer.boundary(BATCH, DRAW, "", {"order of the examples": draw.table[0]})
            tracer.boundary(AUGMENTATION, DRAW, "", dict(zip(_DRAWN, draw.table[1:], strict=True)))
            with tracer:
                batch: Batch = self.trainee.batches.make(draw)
                self._loss = train_step(self.trainee, batch)

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters, buffers and optimizer state by name, such as `exp_avg of conv1.weight`."""
        model = self.trainee.model
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        found = {f"parameter {name}": parameter.detach() for name, parameter in model.named_parameters()}
        found |= {f"buffer {name}": buffer for name, buffer in model.named_buffers()}
        for parameter, state in self.trainee.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    found[f"{key} of {names[id(parameter)]}"] = value
        return found

    def gradients(self) -> dict[str, torch.Tensor]:
        """The gradients as the last step left them."""
        named = self.trainee.model.named_parameters()
        return {f"gradient of {name}": p.grad for name, p in named if p.grad is not None}

    def fingerprint(self) -> str:
        """That of the model as it is now."""
        return fingerprint(self.trainee.model)

    def weights(self) -> dict[str, torch.Tensor]:
        """All parameters, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.trainee.model.named_parameters()}

    def predictions(self) -> torch.Tensor:
        """The predicted class (n,) of every test example."""
        found = evaluate(self.trainee.model, self.trainee.batches)
        self.trainee.model.train()
        return torch.from_numpy(found.log_probabilities.argmax(axis=1))

    def loss(self) -> float:
        """The loss of the last step's batch."""
        return float(self._loss)

    def _redrawn(self) -> Draw:
        assert self._draw is not None
        return self.redraw(self._draw, self.epoch + 1, self.step)

    def _state(self) -> dict[str, Any]:
        trainee = self.trainee
        return {
            "model": {name: tensor.clone() for name, tensor in model_state(trainee.model).items()},
            "optimizer": {
                parameter: {key: _copied(value) for key, value in state.items()}
                for parameter, state in trainee.optimizer.state.items()
            },
            "dropouts": [dropout.step for dropout in trainee.dropouts],
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
