"""A run trained again step by step: digests after each step, one step back, and that step with every operation seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from twinrun.inspect.bits import bits_digest
from twinrun.inspect.injected.twinrun_names import Names
from twinrun.inspect.injected.twinrun_operations import AUGMENTATION, BATCH, DRAW, STATE, Event
from twinrun.inspect.trace import Tracer
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import Noise as NoiseRecord
from twinrun.training.batches import Batch, Draw, batch_bounds
from twinrun.training.checkpoint import load_checkpoint, model_state, peek_checkpoint, restore_model
from twinrun.training.fingerprint import fingerprint
from twinrun.training.loop import begin_epoch, evaluate, identify, train_epoch, train_step
from twinrun.training.optimizers import learning_rate, set_learning_rate
from twinrun.training.setup import assemble, set_conditions
from twinrun.training.workspace import Workspace

_DRAWN = ("row of the crop", "column of the crop", "horizontal flip", "vertical flip")


class Replay:
    """One run of the study, driven from outside; `noise` is what its record says.

    `redraw` and `around` change nothing; tests put a known disturbance there.
    """

    def __init__(self, params: Params, run: Run, layout: Layout, noise: NoiseRecord, device: str) -> None:
        conditions = set_conditions(params, run, layout, device)
        self.device, self.flags = conditions.device, conditions.flags
        self.setup = assemble(conditions, noise.entropy)
        self._names = Names()
        self._names.add_root(self.setup.model)
        self._names.add_optimizer(self.setup.optimizer)
        self.epochs, self.epoch, self.step = params.tasks[run.task].recipe.epochs, 0, 0  # done, and of the epoch
        self.steps = len(
            batch_bounds(conditions.packed.n_train, params.tasks[run.task].recipe.batch_size)
        )  # of an epoch
        self._identity = lambda code: identify(conditions, code)
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
        if load_checkpoint(self._checkpoint, identity, self.setup.model, self.setup.optimizer) is None:
            return 0
        self.epoch = epoch
        return epoch

    def whole_epoch(self) -> str:
        """Train an epoch as a run does; the fingerprint after it."""
        set_learning_rate(self.setup.optimizer, learning_rate(self.setup.settings, self.epoch))
        train_epoch(self.setup, self.epoch)
        self.epoch += 1
        return fingerprint(self.setup.model)

    def next_step(self) -> bool:
        """Train one step, and be able to go back; False, and nothing done, where the last epoch has ended."""
        draw = next(self._draws, None) if self._draws else None
        if draw is None:
            if self._draws:
                self.epoch, self.step = self.epoch + 1, 0
            if self.epoch >= self.epochs:
                return False
            set_learning_rate(self.setup.optimizer, learning_rate(self.setup.settings, self.epoch))
            begin_epoch(self.setup, self.epoch)
            self._draws = self.setup.batches.draws(self.epoch)
            draw = next(self._draws)
        self._draw = draw
        self._before = self._state()
        self.step += 1
        with self.around(self.epoch + 1, self.step):
            self._loss = train_step(self.setup, self.setup.batches.make(self._redrawn()))
        return True

    def step_digests(self) -> dict[str, str]:
        """After a step: digests of what was drawn, of the loss, and of every tensor that goes on to the next."""
        drawn = self._redrawn().table
        return {"draw": bits_digest(drawn), "loss": bits_digest(self._loss)} | {
            name: bits_digest(tensor) for name, tensor in self.tensors().items()
        }

    def rewind(self) -> None:
        """Put everything back to where it was before the last step."""
        self.step -= 1
        before, setup = self._before, self.setup
        restore_model(setup.model, before["model"])
        setup.optimizer.zero_grad(set_to_none=True)
        setup.optimizer.state.clear()
        for parameter, state in before["optimizer"].items():
            setup.optimizer.state[parameter] = {key: _copied(value) for key, value in state.items()}
        for dropout, step in zip(setup.dropouts, before["dropouts"], strict=True):
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
                self.setup.model,
                self.setup.optimizer,
                draw.table.shape[1],
                lambda event: report(event, tracer),
            )
            for name, tensor in self.tensors().items():
                tracer.boundary(STATE, STATE, {name: tensor})
            tracer.boundary(BATCH, DRAW, {"order of the examples": draw.table[0]})
            tracer.boundary(AUGMENTATION, DRAW, dict(zip(_DRAWN, draw.table[1:], strict=True)))
            with tracer:
                batch: Batch = self.setup.batches.make(draw)
                self._loss = train_step(self.setup, batch)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters, buffers, gradients and optimizer state by name, such as `exp_avg of conv1.weight`."""
        return self._names.tensors()

    def fingerprint(self) -> str:
        """That of the model as it is now."""
        return fingerprint(self.setup.model)

    def weights(self) -> dict[str, torch.Tensor]:
        """All parameters, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.setup.model.named_parameters()}

    def predictions(self) -> torch.Tensor:
        """The predicted class (n,) of every test example."""
        predicted = evaluate(self.setup.model, self.setup.batches)
        self.setup.model.train()
        return torch.from_numpy(predicted.log_probabilities.argmax(axis=1))

    def loss(self) -> float:
        """The loss of the last step's batch."""
        return float(self._loss)

    def _redrawn(self) -> Draw:
        assert self._draw is not None
        return self.redraw(self._draw, self.epoch + 1, self.step)

    def _state(self) -> dict[str, Any]:
        setup = self.setup
        return {
            "model": {name: tensor.clone() for name, tensor in model_state(setup.model).items()},
            "optimizer": {
                parameter: {key: _copied(value) for key, value in state.items()}
                for parameter, state in setup.optimizer.state.items()
            },
            "dropouts": [dropout.step for dropout in setup.dropouts],
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
