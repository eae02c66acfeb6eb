"""One side of two runs in lockstep: does what it is told, answers with digests, pauses after each traced operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from twinrun.inspect.bits import Difference, array_bits, difference, unequal
from twinrun.inspect.injected.twinrun_operations import DRAW, Event, Kept, Value, name_of
from twinrun.inspect.lockstep import Message
from twinrun.inspect.replay import Replay
from twinrun.inspect.trace import Tracer
from twinrun.study.files import write_bytes
from twinrun.training.randomness import StreamDropout


def serve(replay: Replay, receive: Callable[[], Message], send: Callable[[Message], None]) -> None:
    """Answer each request with one message, until `quit`; a traced step sends one message for each operation."""
    send({"initial": replay.setup.initial, "bytes": _bytes(replay), "steps": replay.steps})
    while (request := receive())["do"] != "quit":
        match request["do"]:
            case "advance":
                start = replay.resume(request["code"], request["fingerprints"])
                send({"start": start, "fingerprints": [replay.whole_epoch() for _ in request["fingerprints"][start:]]})
            case "step":
                more = replay.next_step()
                digests = replay.step_digests() if more else {}
                place = {"epoch": replay.epoch + 1, "step": replay.step, "last": replay.step == replay.steps}
                send({"more": more, "digests": digests, **place})
            case "rewind":
                replay.rewind()
                send({})
            case "trace":
                send({"end": True, "names": Pause(replay, receive, send).run()})
            case "digests":
                send({"digests": replay.step_digests()})
            case "fingerprint":
                send({"fingerprint": replay.fingerprint()})
            case "export":
                tensors = {f"weight/{name}": tensor for name, tensor in replay.weights().items()}
                if request["predict"]:
                    tensors["predicted"] = replay.predictions()
                write_bytes(Path(request["path"]), save(tensors))
                send({"loss": _finite(replay.loss())})
            case "distance":
                send(_distance(replay, load_file(request["path"])))


class Pause:
    """A traced step that stops after each operation until it is told to go on."""

    def __init__(self, replay: Replay, receive: Callable[[], Message], send: Callable[[Message], None]) -> None:
        self.replay, self.receive, self.send = replay, receive, send
        self.kept = Kept()
        self.order: torch.Tensor | None = None  # the place in the first run's batch of each example of this one's
        self.types = {path: type(module).__name__ for path, module in replay.setup.model.named_modules()}

    def run(self) -> list[str | None]:
        """Do the step; returns what the tensors that were asked for have become, such as `gradient of fc.weight`."""
        for name, parameter in self.replay.setup.model.named_parameters():
            self.kept.watch(parameter, name)
        self.replay.traced_step(self.report)
        return self.kept.names()

    def report(self, event: Event, tracer: Tracer) -> None:
        """Send the event, then obey until `go` or `stop`."""
        self.send(event.message(self.types))
        while (request := self.receive())["do"] not in ("go", "stop"):
            value = event.value(request)
            tensor = value.tensor.detach().cpu()
            answer: Message = {"name": self.name(value, event), "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
            answer["bytes"] = tensor.numel() * tensor.element_size()
            if request["do"] == "save":
                write_bytes(Path(request["path"]), save({"tensor": tensor.contiguous().clone()}))
            elif request["do"] == "compare":
                apart = self.compare(load_file(request["path"])["tensor"], tensor, event.operation == DRAW)
                answer["difference"] = apart and asdict(apart)
                self.kept.tensors.append(value.tensor)
            self.send(answer)
        if request["do"] == "stop":
            tracer.stop()

    def compare(self, first: torch.Tensor, second: torch.Tensor, drawn: bool) -> Difference | None:
        """How they differ; once the order of the batch does, example by example where that brings them nearer."""
        apart = difference(first, second)
        if drawn and apart and apart.kind == "elements in another order":
            self.order = first.argsort()[second.argsort().argsort()]
        elif apart and self.order is not None and len(self.order) in first.shape:
            axis = tuple(first.shape).index(len(self.order))
            aligned = difference(first.index_select(axis, self.order), second)
            if aligned is None or (aligned.differ, aligned.ulps_max or 0) < (apart.differ, apart.ulps_max or 0):
                return aligned
        return apart

    def name(self, value: Value, event: Event) -> str:
        """Whose tensor it is: a parameter, buffer, gradient or optimizer state by name, else its label."""
        if value.tensor.dtype == torch.bool and self.types.get(event.module) == StreamDropout.__name__:
            return "dropout mask"
        return name_of(value, self.replay.tensors())


def _bytes(replay: Replay) -> int:
    return sum(p.numel() * p.element_size() for p in replay.setup.model.parameters())


def _distance(replay: Replay, other: dict[str, torch.Tensor]) -> Message:
    """How far this run's weights, and predictions where `other` has some, are from those of `other`."""
    predicted = replay.predictions() if "predicted" in other else None
    first = torch.cat([other[f"weight/{name}"].reshape(-1) for name in replay.weights()])
    second = torch.cat([tensor.reshape(-1) for tensor in replay.weights().values()])
    apart = unequal(array_bits(first), array_bits(second))
    ulps = np.sort(apart.ulps[apart.ulps > 0]) if apart else np.empty(0)
    norm = first.double().norm()
    return {
        "weights_differ": int((first != second).sum()),
        "weights": first.numel(),
        "ulps_max": int(ulps[-1]) if len(ulps) else None,
        "ulps_median": float(ulps[(len(ulps) - 1) // 2]) if len(ulps) else None,
        "relative_l2": _finite(float((second.double() - first.double()).norm() / norm)) if norm > 0 else None,
        "flipped": None if predicted is None else int((other["predicted"] != predicted).sum()),
        "examples": None if predicted is None else len(predicted),
        "loss": _finite(replay.loss()),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
