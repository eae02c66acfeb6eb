"""One run, from its set-up to its record: read it top-down.

twinrun train digits/sgd/42/det_1           # in the study folder; writes runs/digits/sgd/42/det_1/
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from twinrun.study.errors import InputError
from twinrun.study.files import digest
from twinrun.study.flags import INSTRUCTION_SET
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import FINISHED, Metrics, Record, read_record
from twinrun.study.records import Noise as NoiseRecord
from twinrun.training import outcome
from twinrun.training.batches import Batch, Batches
from twinrun.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from twinrun.training.energy import energy_meter
from twinrun.training.environment import gpu_name, versions
from twinrun.training.fingerprint import fingerprint
from twinrun.training.kept_model import model_file
from twinrun.training.metrics import evaluate_metrics
from twinrun.training.optimizers import learning_rate, set_learning_rate
from twinrun.training.randomness import seed_global_generators
from twinrun.training.recording import describe_weights, features_of, recorded_weights
from twinrun.training.setup import Conditions, Setup, assemble, set_conditions
from twinrun.training.torch_errors import named_torch_errors, refuse_hidden_shortage
from twinrun.training.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """How to execute a run; of these only `device`, `replay` and `stop_after` may change its bits."""

    device: str = "auto"
    replay: NoiseRecord | None = None  # the emulated noise of another run, to be used again
    stop_after: int | None = None  # epochs; a prefix of the run, for verification
    shared: bool = False  # others run on the machine at the same time: timings are marked
    unless_done: bool = False  # leave a run alone that is there, because another process was faster
    checkpoint_seconds: float = 5.0  # least time between two checkpoints
    progress: Callable[[dict[str, Any], int], None] = field(default=lambda row, epochs: None)


def train_run(params: Params, run: Run, layout: Layout, code: str, options: Options) -> Record:
    """Train one run and write its record; resume it where an interrupted one left a checkpoint.

    Raises BusyError when another process holds the run, InputError for a device, data or replay that is not there.
    """
    recipe = params.tasks[run.task].recipe
    conditions = set_conditions(params, run, layout, options.device)
    check_replay(conditions, options.replay)
    device, packed = conditions.device, conditions.packed
    with Workspace(layout.work(run)) as workspace, named_torch_errors(run.id, recipe.batch_size):
        if options.unless_done and params.state_of(run, layout, packed.digest, code) in FINISHED:
            workspace.finish()
            return read_record(layout.run(run))
        started, clock, meter = datetime.now(UTC), time.perf_counter(), energy_meter(device)
        replayed = options.replay.entropy if options.replay else None
        identity = identify(conditions, code, replayed, options.stop_after)
        attempt = workspace.begin(identity, needs_entropy=conditions.needs_entropy and not replayed)
        setup = assemble(conditions, replayed or attempt.entropy)
        model, optimizer, batches = setup.model, setup.optimizer, setup.batches

        progress = load_checkpoint(workspace.checkpoint, identity, model, optimizer)
        resumed = progress is not None
        if progress is None:
            progress = Progress(identity, 0, [], recorded_weights(model, 0), {"train": 0.0, "eval": 0.0})
        epochs = min(recipe.epochs, options.stop_after or recipe.epochs)
        note, predictions, saved = None, outcome.no_predictions(len(packed.classes)), time.perf_counter()
        if progress.epoch == epochs:  # interrupted between the last epoch and the record
            predictions = evaluate(model, batches)
            progress.rows[-1] |= evaluate_metrics(*predictions).model_dump()
        for epoch in range(progress.epoch, epochs):
            rate = learning_rate(setup.settings, epoch)
            set_learning_rate(optimizer, rate)
            begin = synchronized(device)
            train_loss = train_epoch(setup, epoch)
            middle = synchronized(device)
            predictions = evaluate(model, batches)
            end = synchronized(device)
            refuse_hidden_shortage(run.id, device, recipe.batch_size)
            progress.seconds["train"] += middle - begin
            progress.seconds["eval"] += end - middle
            row: dict[str, Any] = {"epoch": epoch + 1, "learning_rate": rate, "train_loss": train_loss}
            row["fingerprint"] = fingerprint(model)
            progress.epoch = epoch + 1
            progress.rows.append(row)
            if not (math.isfinite(train_loss) and np.isfinite(predictions.probabilities).all()):
                note = f"the loss was not finite in epoch {epoch + 1}"
                predictions = outcome.no_predictions(len(packed.classes))
                break
            row |= evaluate_metrics(*predictions).model_dump()
            if (epoch + 1) % recipe.heads_every == 0 or epoch + 1 == epochs:
                progress.weights |= recorded_weights(model, epoch + 1)
            if time.perf_counter() - saved >= options.checkpoint_seconds:
                save_checkpoint(workspace.checkpoint, progress, model, optimizer)
                saved = time.perf_counter()
            options.progress(row, epochs)  # after the checkpoint: whoever is told may fail

        last = progress.rows[-1]
        result = outcome.Outcome(
            record=Record(
                run=run.id,
                task=run.task,
                optimizer=run.optimizer,
                seed=run.seed,
                arm=run.arm,
                replicate=run.replicate,
                status="diverged" if note else "complete",
                params_digest=params.run_digest(run),
                code_digest=code,
                data_digest=packed.digest,
                device=device.type,  # type: ignore[arg-type] # cpu or cuda
                noise=NoiseRecord(kind=conditions.noise_kind, entropy=setup.noise.entropy),
                flags=conditions.flags,
                parameter_count=sum(parameter.numel() for parameter in model.parameters()),
                initial_fingerprint=setup.initial,
                fingerprints=[row["fingerprint"] for row in progress.rows],
                metrics=None if note else Metrics(**{name: last[name] for name in Metrics.model_fields}),
                note=note,
                files={},
            ),
            curve=progress.rows,
            predictions=predictions,
            weights=progress.weights,
            shapes=describe_weights(model),
            features=None if note or not recipe.features else features_of(model, batches, recipe.features),
            model=model_file(setup) if params.keeps_model(run) else None,
            seconds=None if resumed else progress.seconds | {"total": time.perf_counter() - clock},
            energy=(None, "not measured: the run was resumed") if resumed else meter.joules(shared=options.shared),
            idle_watts=meter.idle_watts,
            started=started,
            attempts=attempt.number,
            shared=options.shared,
            device=device,
        )
        record = outcome.publish(layout.run(run), result)
        workspace.finish()
    return record


def train_epoch(setup: Setup, epoch: int) -> float:
    """One pass over the training set; the mean loss over its examples. The device is waited for at the end only."""
    begin_epoch(setup, epoch)
    losses, sizes = zip(*updates(setup, setup.batches.train(epoch)), strict=True)
    values = torch.stack(losses).tolist()
    return math.fsum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)


def begin_epoch(setup: Setup, epoch: int) -> None:
    """Seed what a model may draw from in this epoch."""
    # Nothing of ours draws from these generators; a user's model may.
    seed_global_generators("dropout", setup.streams.dropout, epoch)
    for dropout in setup.dropouts:
        dropout.start_epoch(setup.streams.dropout, epoch)
    setup.model.train()


def updates(setup: Setup, batches: Iterable[Batch]) -> Iterator[tuple[torch.Tensor, int]]:
    """One update of the weights for each batch; its loss, on the device, and its number of examples."""
    model, optimizer = setup.model, setup.optimizer
    for batch in batches:
        for dropout in setup.dropouts:
            dropout.order = batch.order
        loss = setup.loss(model(batch.images).float(), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield loss.detach(), len(batch.labels)


def train_step(setup: Setup, batch: Batch) -> torch.Tensor:
    """A single update, for what looks at each; the loss of the batch, on the device."""
    return next(updates(setup, [batch]))[0]


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches) -> outcome.Predictions:
    """Class probabilities, labels and log-probabilities of every test example, in the prepared order."""
    model.eval()
    probabilities, labels, logs = [], [], []
    for batch in batches.test():
        logits = model(batch.images)
        probabilities.append(functional.softmax(logits.float(), dim=1))
        logs.append(functional.log_softmax(logits.double(), dim=1))
        labels.append(batch.labels)
    return outcome.Predictions(*(torch.cat(parts).cpu().numpy() for parts in (probabilities, labels, logs)))


def identify(conditions: Conditions, code: str, replayed: str | None = None, stop_after: int | None = None) -> str:
    """What a checkpoint must agree in: a run that went on with another library, GPU or CPU would be two halves."""
    params, run, device = conditions.params, conditions.run, conditions.device
    return digest([run.id, params.run_digest(run), code, conditions.packed.digest, conditions.noise_kind, replayed,
                   stop_after, versions(device), gpu_name(device), conditions.flags.get(INSTRUCTION_SET)])  # fmt: skip


def check_replay(conditions: Conditions, replay: NoiseRecord | None) -> None:
    """Refuse to replay what this run does not have: InputError."""
    kind = conditions.noise_kind
    if replay and (not conditions.needs_entropy or replay.kind != kind):
        raise InputError(
            f"{conditions.run.id}: its noise here is {kind}, which cannot replay a record with {replay.kind} noise",
            "only reorder and ulp noise can be replayed, each by a run of the same kind",
        )


def synchronized(device: torch.device) -> float:
    """The clock, once the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
