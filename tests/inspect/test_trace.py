"""What a traced operation shows of its tensors: what was computed, and neither scratch nor repeated memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from twinrun.inspect.injected.twinrun_operations import Event
from twinrun.inspect.repeat import call_digests
from twinrun.inspect.trace import Tracer


def events_of(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor) -> dict[str, Event]:
    found: dict[str, Event] = {}
    with Tracer(model, optimizer, len(inputs), lambda event: found.__setitem__(event.operation, event)):
        model(inputs).square().sum().backward()
        optimizer.step()
    return found


def test_a_view_that_shows_its_memory_several_times_is_not_digested() -> None:
    images = torch.randn(8, 6)
    crops, model = images.unfold(1, 3, 1), nn.Linear(3, 2)
    found: list[Event] = []
    with Tracer(model, torch.optim.SGD(model.parameters(), 0.1), 8, found.append):
        taken = crops[torch.arange(8), torch.ones(8, dtype=torch.int64)]
    (event,) = (one for one in found if one.operation.startswith("aten.index."))
    assert [value.label for value in event.inputs] == ["indices[0]", "indices[1]"]
    assert torch.equal(event.outputs[0].tensor, taken)


def test_the_momentum_of_the_first_step_is_no_input() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=True)
    first, second = (events_of(model, optimizer, torch.ones(4, 3))["aten._fused_sgd_.default"] for _ in range(2))
    for event, given in ((first, 0), (second, 2)):
        labels = [value.label for value in event.inputs]
        assert sum(label.startswith("momentum_buffer_list") for label in labels) == given
        assert sum(label.startswith("grads") for label in labels) == 2
        assert sum(value.label.startswith("momentum_buffer_list") for value in event.outputs) == 2


@pytest.mark.parametrize(("name", "count"), [("aten::cudnn_batch_norm", 3), ("aten::native_batch_norm", 4)])
def test_what_cudnn_leaves_for_its_backward_pass_is_not_compared(name: str, count: int) -> None:
    def call(given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return given + 1, given + 2, given + 3, torch.rand(5)

    call._schema = SimpleNamespace(name=name)  # type: ignore[attr-defined]
    one, two = (call_digests(call, (torch.ones(2),), {}) for _ in range(2))
    assert len(one) == count + 1
    assert (one == two) == (count == 3)
