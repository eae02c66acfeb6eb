"""The audit flags what it must, passes the study's models, and leaves what it looks at as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture
from torch import nn
from torch.nn import functional

import twinrun
from twinrun.inspect import audit as auditing
from twinrun.inspect import nondeterministic_ops as hazards
from twinrun.inspect import repeat as calls
from twinrun.inspect.targets import audit_task, find_function
from twinrun.study import files
from twinrun.study.errors import InputError, OutOfMemoryError
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.training.fingerprint import fingerprint

OWN = """
import torch
from torch import nn

def make():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, nn.CrossEntropyLoss(), optimizer, (torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))

def half():
    return 1, 2
"""


class Wrapped(nn.Module):
    """A convolution, what `middle` makes of its output (4, 4, 6, 6), and a linear layer."""

    def __init__(self, middle: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 4, 3), Middle(middle), nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)).flatten(1))


class Middle(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fresh processes, but where a test asks for them."""
    monkeypatch.setattr(auditing, "repeat_elsewhere", lambda folder: {})


def examine(middle: Callable[[torch.Tensor], torch.Tensor], repeats: int = 2) -> auditing.Audit:
    torch.manual_seed(0)
    model = Wrapped(middle)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    model(images)
    return twinrun.audit(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), (images, labels),
                         repeats=repeats)  # fmt: skip


ROWS = torch.tensor([0, 0, 1, 1])
FLAGGED = {
    "aten.index_add_.default": ("forward", lambda x: torch.zeros_like(x).index_add_(0, ROWS, x)),
    "aten.scatter_add_.default": (
        "forward", lambda x: torch.zeros_like(x).scatter_add_(0, torch.zeros_like(x).long(), x),
    ),
    "aten._adaptive_avg_pool2d_backward.default": ("backward", lambda x: functional.adaptive_avg_pool2d(x, 2)),
    "aten.upsample_bilinear2d_backward.default": (
        "backward", lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    ),
    "aten.index_put_.default": ("forward", lambda x: torch.zeros_like(x).index_put_((ROWS,), x, accumulate=True)),
    "aten.cumsum.default": ("forward", lambda x: x + x.detach().cumsum(1)),
    "aten.reflection_pad2d_backward.default": ("backward", lambda x: functional.pad(x, (1, 1, 1, 1), "reflect")),
    "aten.adaptive_max_pool2d_backward.default": ("backward", lambda x: functional.adaptive_max_pool2d(x, 2)),
}  # fmt: skip


@pytest.mark.parametrize("operation", FLAGGED)
def test_flags(operation: str) -> None:
    phase, middle = FLAGGED[operation]
    found = examine(middle)
    bad = {(one.phase, one.operation, one.module) for one in found.findings if one.level == "bad"}
    assert bad == {(phase, operation, "middle")}
    assert not found.ok
    assert all(one.instead for one in found.findings)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: functional.adaptive_avg_pool2d(x, 1),
        lambda x: x.mean((2, 3)),
        lambda x: functional.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: functional.max_pool2d(x, 2),
        lambda x: torch.zeros_like(x).index_put_((torch.arange(4),), x),
        lambda x: functional.dropout(x, 0.5),  # random is not nondeterministic: its generator is put back
        lambda x: functional.batch_norm(x, None, None, training=True),
    ],
)
def test_passes(middle: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert examine(middle).ok


def test_passes_the_model_of_a_study(params: Params, study: Layout) -> None:
    """The other one's is passed by the command below."""
    found = audit_task(params, "cuts", study, "cpu", 2)
    assert found.ok, [one for one in found.findings if one.level == "bad"]
    assert found.operations > 100


def test_passes_resnet18(study: Layout) -> None:
    file = study.root / "params.yaml"
    file.write_text(file.read_text().replace("{name: preactresnet18, width", "{name: resnet18, width"))
    assert audit_task(read_params(file), "shapes", study, "cpu", 2).ok


def test_what_really_differs_when_it_is_repeated_and_what_is_opaque() -> None:
    library = torch.library.Library("twinrun_audit", "FRAGMENT")
    library.define("restless(Tensor x) -> Tensor")
    calls_made = iter(range(10**6))
    library.impl("restless", lambda x: x + (1e-3 if next(calls_made) % 2 else 0.0), "CPU")
    library.define("calm(Tensor x) -> Tensor")
    library.impl("calm", lambda x: x * 2, "CPU")
    found = examine(lambda x: torch.ops.twinrun_audit.restless(torch.ops.twinrun_audit.calm(x.detach())), repeats=4)
    by_kind = {(one.kind, one.operation): one for one in found.findings}
    repeated = by_kind["repeated", "twinrun_audit.restless.default"]
    assert (repeated.level, repeated.module) == ("bad", "middle")
    assert "of 3 repetitions" in repeated.what
    assert ("opaque", "twinrun_audit.calm.default") in by_kind
    assert ("repeated", "twinrun_audit.calm.default") not in by_kind


class Late(torch.autograd.Function):
    """Its backward pass alone has no deterministic implementation, on any device."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return put_one(gradient)


def put_one(x: torch.Tensor) -> torch.Tensor:
    return x.clone().put_(torch.tensor([0]), torch.ones(1))


@pytest.mark.filterwarnings("ignore:put_ does not have")
@pytest.mark.parametrize("strict", [False, True])
def test_what_pytorch_says_of_operations_that_its_documentation_forgot(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hazards, "HAZARDS", {})
    torch.use_deterministic_algorithms(strict, warn_only=True)
    try:
        for phase, middle in (("forward", lambda x: put_one(x.detach())), ("backward", Late.apply)):
            found = [one for one in examine(middle).findings if one.level == "bad"]
            said = [(one.kind, one.phase, one.operation, one.module) for one in found]
            assert said == [("warned", phase, "aten.put_.default", "middle")]
        assert torch.are_deterministic_algorithms_enabled() is strict
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_operation_that_is_refused_is_done_once_with_the_generator_as_it_was() -> None:
    library = torch.library.Library("twinrun_refused", "FRAGMENT")
    library.define("draw_(Tensor(a!) x) -> Tensor(a!)")
    library.impl("draw_", lambda x: x.add_(torch.rand(1)).put_(torch.tensor([0]), torch.ones(1)), "CPU")
    kept = []

    def middle(x: torch.Tensor) -> torch.Tensor:
        before, state = x.detach().clone(), torch.get_rng_state()
        kept.append((state, before, torch.ops.twinrun_refused.draw_(x.detach().clone())))
        return x

    found = examine(middle)
    assert [(one.kind, one.operation) for one in found.findings if one.level == "bad"] == [
        ("warned", "twinrun_refused.draw_.default")
    ]
    state, before, after = kept[-1]
    torch.set_rng_state(state)
    assert torch.equal(after, put_one(before + torch.rand(1)))


def test_threads() -> None:
    """The gradient of a convolution's weight is a sum that is split among threads."""
    found = examine(lambda x: x)
    threads = {(one.operation, one.module) for one in found.findings if one.kind == "threads"}
    assert ("aten.convolution_backward.default", "first") in threads
    assert found.ok
    assert torch.get_num_threads() == 1


def test_it_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    optimizer = torch.optim.Adam(model.parameters())
    before, state = fingerprint(model), torch.get_rng_state()
    flags = torch.are_deterministic_algorithms_enabled()
    twinrun.audit(model, nn.CrossEntropyLoss(), optimizer, (torch.ones(2, 3, 8, 8), torch.tensor([0, 1])), repeats=2)
    assert fingerprint(model) == before
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.are_deterministic_algorithms_enabled() == flags


def test_a_step_that_fails_is_said_so() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"the training step to be audited fails: .*RuntimeError: mat1 and mat2"):
        twinrun.audit(model, nn.CrossEntropyLoss(), optimizer, (torch.ones(2, 5), torch.tensor([0, 1])))


def test_any_error_of_the_users_loss_is_named_with_its_line() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"fails: .*test_audit.py, line \d+: KeyError: 'weights'"):
        twinrun.audit(model, lambda made, wanted: {}["weights"], optimizer, (torch.ones(2, 3), torch.tensor([0, 1])))


def test_no_memory_is_no_mistake_in_the_users_code(study: Layout, cli: Cli) -> None:  # noqa: F811
    greedy = OWN.replace("torch.randn(4, 3, 8, 8)", "torch.empty(10**14)")
    late = OWN.replace("nn.CrossEntropyLoss()", "lambda made, wanted: torch.empty(10**14)")
    for text in (greedy, late):
        (study.root / "own.py").write_text(text)
        code, _, err = cli("audit", "own.py:make")
        assert code == OutOfMemoryError.exit_code
        assert "audit of own.py:make: out of memory" in err
        assert "lower batch_size, image_size or model width" in err


def test_no_memory_is_named_in_python_too() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(OutOfMemoryError, match="audit: out of memory"):
        twinrun.audit(model, lambda made, wanted: torch.empty(10**14), optimizer, (torch.ones(2, 3), torch.zeros(2)))


def test_mixed_precision_is_looked_at_in_the_copy(study: Layout) -> None:
    file = study.root / "params.yaml"
    file.write_text(file.read_text().replace("precision: fp32", "precision: bf16"))
    found = audit_task(read_params(file), "shapes", study, "cpu", 2)
    assert any(one.module.startswith("blocks.") for one in found.findings)


def test_a_saved_call_is_the_same_call(tmp_path: Path) -> None:
    matrix = torch.randn(5, 4)
    cases = [
        (torch.ops.aten.mm.default, (matrix, matrix.t()), {}),
        (torch.ops.aten.sum.dim_IntList, (matrix, [1], True), {"dtype": torch.float64}),
        (torch.ops.aten.clamp.default, (matrix, float("-inf"), 0.5), {}),
        (torch.ops.aten._to_copy.default, (matrix,), {"dtype": torch.float16, "device": torch.device("cpu")}),
    ]
    for number, (function, args, kwargs) in enumerate(cases):
        assert calls.save_call(tmp_path, number, function, args, kwargs)
    again = calls.repeat_saved(tmp_path)
    assert again == {str(n): calls.call_digests(f, a, k) for n, (f, a, k) in enumerate(cases)}
    assert not calls.save_call(tmp_path, 9, torch.ops.aten.mm.default, (object(),), {})


def test_no_room_for_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="no room for 0 MB of an operation's inputs"):
        calls.save_call(tmp_path, 0, torch.ops.aten.neg.default, (torch.ones(3),), {})


@pytest.mark.slow
def test_the_command(study: Layout, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """In real processes of each instruction set: a convolution differs between them, a change of sign does not."""
    by_operation: dict[str, list[set[tuple[str, ...]]]] = {}

    def everywhere(folder: Path) -> dict[str, dict[str, list[str]]]:
        calls.save_call(folder, 10**6, torch.ops.aten.neg.default, (torch.randn(1000),), {})
        results = calls.repeat_elsewhere(folder)
        assert {"SSE", "AVX2"} <= set(results)
        for path in folder.glob("*.json"):
            bits = {tuple(digests[path.stem]) for digests in results.values()}
            by_operation.setdefault(json.loads(path.read_text())["name"], []).append(bits)
        return results

    monkeypatch.setattr(auditing, "repeat_elsewhere", everywhere)
    (study.root / "own.py").write_text(OWN)
    Path("found.json").write_text('{"findings": [], "ok": true}')  # an earlier answer
    code, out, err = cli("audit", "own.py:make", "--json", "found.json")
    assert any(len(bits) > 1 for bits in by_operation["aten::convolution"])
    assert [len(bits) for bits in by_operation["aten::neg"]] == [1]
    monkeypatch.setattr(auditing, "repeat_elsewhere", lambda folder: {})
    assert code == 4
    assert "_adaptive_avg_pool2d_backward" in out
    assert "own.py:make: 1 operation that may give other bits from run to run" in err
    found = json.loads((study.root / "found.json").read_text())
    assert (found["ok"], found["device"], found["torch"]) == (False, "cpu", torch.__version__)
    assert {one["kind"] for one in found["findings"]} >= {"documented", "instructions"}
    code, out, _ = cli("audit", "shapes", "--repeats", "2")
    assert code == 0
    assert out.startswith("shapes: no operations that may give other bits from run to run, of ")


def test_names_that_lead_nowhere(study: Layout, params: Params) -> None:
    (study.root / "own.py").write_text(OWN)
    assert find_function("own.py:make", study.root)()
    for name, words in (("own.py:nothing", "nothing"), ("absent.py:make", "no such file"), ("absent:make", "absent")):
        with pytest.raises(InputError, match=words):
            find_function(name, study.root)
    from twinrun.inspect.targets import audit_function

    for text, words in (
        ("def make(:\n", r"own\.py:make: SyntaxError: .*own\.py, line 1"),
        ("def make():\n    return {}['a']\n", r"own\.py, line 2: KeyError: 'a'"),
        ("import torch\ntorch.empty(-1)\n", r"own\.py, line 2: RuntimeError"),
    ):
        (study.root / "own.py").write_text(text)
        with pytest.raises(InputError, match=words):
            audit_function("own.py:make", study.root, 2)
    with pytest.raises(InputError, match=":make: a module and a function are needed"):
        find_function(":make", study.root)
    (study.root / "own.py").write_text(OWN)
    with pytest.raises(InputError, match="does not return what an audit needs"):
        audit_function("own.py:half", study.root, 2)
    with pytest.raises(InputError, match="task 'nothing' is not in the grid"):
        audit_task(params, "nothing", study, "cpu", 2)
