"""Any PyTorch program is followed, and the first operation in which its twins part is named; what cannot be is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture
from tests.warm.start import REAL

from twinrun.inspect.audit import audit_calls, step_of_audit
from twinrun.inspect.same_draws import same_draws
from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.files import write_json
from twinrun.twins.costing import REGION
from twinrun.twins.tracing import Located, Program, locate_program, operations_of

# A warm process has torch already: what Python itself would have run at the start is run here.
START = (
    "import torch; import os, runpy; "
    "runpy.run_path(os.environ['PYTHONPATH'].split(os.pathsep)[0] + '/sitecustomize.py'); "
    "runpy.run_path('train.py', run_name='__main__')"
)
HEAD = """
import os, random, numpy, torch
from torch import nn
from torch.nn import functional as F
second = "twin_2" in os.getcwd()  # where a difference is planted
torch.manual_seed(0)
x, y = torch.randn(8, 6), torch.arange(8) % 3
"""
PLAIN = (
    HEAD
    + """
class Scaled(nn.Module):
    factor = 1.0
    def forward(self, x):
        return x * self.factor

class Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x * 1.0
    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None

shift = [0.0]
@torch.library.custom_op("mine::shifted", mutates_args=())
def shifted(x: torch.Tensor) -> torch.Tensor:
    return x + shift[0]
shifted.register_autograd(lambda ctx, gradient: gradient)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.scaled, self.drop, self.last = nn.Linear(6, 5), Scaled(), nn.Dropout(0.2), nn.Linear(5, 3)
        self.back = 1.0
    def forward(self, x):
        return self.last(self.drop(shifted(self.scaled(Turned.apply(self.first(x), self.back)).relu())))

net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
for step in range(1, 7):
    if step == 4 and second:
        PLANTED
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
"""
)


def located(folder: Path, program: str, **options: float) -> Located:
    (folder / "train.py").write_text(program)
    return locate_program(Program((sys.executable, "-c", START), folder, **options))  # type: ignore[arg-type]


def first(found: Located) -> tuple[int, str, str, str, str]:
    assert found.parting
    operation = found.parting.operation
    assert operation, found.sentences()
    return found.parting.step, operation.phase, operation.operation, operation.module, operation.tensor


GAN = (
    HEAD
    + """
make = lambda *sizes: nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:]))
class Maker(nn.Sequential): pass
class Judge(nn.Sequential): pass
maker, judge = Maker(*make(4, 5, 6)), Judge(*make(6, 5, 1))
optimizers = [torch.optim.Adam(net.parameters(), betas=(0.5, 0.9)) for net in (judge, maker)]
for step in range(4):
    made = maker(torch.randn(8, 4))
    optimizers[0].zero_grad()
    (F.softplus(-judge(x)).mean() + F.softplus(judge(made.detach())).mean()).backward()
    optimizers[0].step()
    optimizers[1].zero_grad()
    F.softplus(-judge(made)).mean().mul(1.5 if step == 2 and second else 1.0).backward()
    optimizers[1].step()
"""
)
ACCUMULATED = (
    HEAD
    + """
net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))
optimizer, scheduler_calls = torch.optim.AdamW(net.parameters()), 0
for step in range(1, 4):
    for part in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(net(x[2 * part : 2 * part + 2]), y[2 * part : 2 * part + 2])
        (loss / (4.1 if (step, part) == (2, 2) and second else 4)).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
"""
)
NOISY = (
    HEAD
    + """
net = nn.Linear(6, 3)
when = int.from_bytes(os.urandom(2)) % 6 + 2 + 6 * second  # elsewhere in each attempt, and never the same in both
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(1, 14):
    optimizer.zero_grad()
    F.cross_entropy(net(x) * (1.001 if step >= when else 1.0), y).backward()
    optimizer.step()
"""
)
ORDER = (
    HEAD
    + """
numpy.random.seed(7 if second else 5)
net = nn.Linear(6, 3)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    rows = torch.from_numpy(numpy.random.permutation(8))
    optimizer.zero_grad()
    F.cross_entropy(net(x[rows]), y[rows]).backward()
    optimizer.step()
"""
)
LIGHTNING = (
    HEAD
    + """
import lightning
lightning.seed_everything(0)
class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    def training_step(self, batch, index):
        out = self.layers(batch[0])
        return F.cross_entropy(out * (1.001 if index == 1 and self.current_epoch == 1 and second else 1.0), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=3, shuffle=True)
lightning.Trainer(max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0).fit(Net(), data)
"""
)
RANKS = (
    HEAD
    + """
import torch.distributed as dist
children = []
for rank in range(2):
    children.append(os.fork())
    if not children[-1]:
        os.environ["RANK"] = str(rank)
        dist.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=rank, world_size=2)
        torch.manual_seed(rank)
        net = nn.parallel.DistributedDataParallel(nn.Linear(6, 3))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(1, 5):
            if step == 3 and rank == 1 and second:
                x.numpy()[0, 0] += 1
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        dist.destroy_process_group()
        os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""
)
WORKERS = (
    HEAD
    + """
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        seed = os.urandom(1)[0] if second and index == 5 else 0
        return x[index] + seed, y[index]
net = nn.Linear(6, 3)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for inputs, targets in torch.utils.data.DataLoader(Rows(), batch_size=2, num_workers=1):
    optimizer.zero_grad()
    F.cross_entropy(net(inputs), targets).backward()
    optimizer.step()
"""
)

# Each public: a generator of the dataset or its transforms (AlbumentationsX 266, MONAI 1068, pytorch-3dunet 32), numpy
# seeded by each worker with a constant or its number alone (CenterNet 233), by the dataset, or anew in each epoch.
AUGMENTED = (
    HEAD
    + """
rng = numpy.random.default_rng(0)
draw = lambda: numpy.random.random()
class Rows(torch.utils.data.Dataset):
    def __init__(self, draw):
        self.transforms = [draw]
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return x[index] + self.transforms[0](), y[index]
class OfTheModule(Rows): pass
class Constant(Rows): pass
class ByWorker(Rows): pass
class Within(Rows): pass
class EachEpoch(Rows): pass
class Fine(Rows): pass
class Evaluated(Rows): pass
class EvaluatedWithin(Rows): pass
class TrainedAnew(Rows): pass
class SetByExample(Rows):
    def __getitem__(self, index):
        self.transforms[0].own.seed(int(epoch) * 100 + index)
        return super().__getitem__(index)
class Owner:
    def __init__(self):
        self.own = random.Random(0)
    def __call__(self):
        return self.own.random()
def within():
    numpy.random.seed(0)
    return draw()
constant, by_worker = lambda worker: numpy.random.seed(3), lambda worker: numpy.random.seed(3 + worker)
net = nn.Linear(6, 3)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
cases = [(Rows(Owner()), 2, None), (OfTheModule(lambda: rng.random()), 2, None), (Constant(draw), 2, constant),
         (ByWorker(draw), 2, by_worker), (Within(within), 2, None), (EachEpoch(draw), 0, None), (Fine(draw), 2, None),
         (Evaluated(draw), 2, constant), (EvaluatedWithin(draw), 0, None), (TrainedAnew(draw), 0, None),
         (SetByExample(Owner()), 0, None)]
for rows, workers, first in cases:
    for epoch in range(2):
        numpy.random.seed(epoch * (type(rows) not in (EachEpoch, EvaluatedWithin, TrainedAnew)))
        if type(rows) is SetByExample:
            rows.transforms[0].own.seed(0)
        if type(rows) is TrainedAnew:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with torch.set_grad_enabled(type(rows) is not Evaluated):
            for inputs, targets in torch.utils.data.DataLoader(rows, 2, num_workers=workers, worker_init_fn=first):
                if torch.is_grad_enabled() and type(rows) is not EvaluatedWithin:
                    optimizer.zero_grad()
                    F.cross_entropy(net(inputs), targets).backward()
                    optimizer.step()
"""
)


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ("x.numpy()[2, 3] = numpy.nextafter(x.numpy()[2, 3], 9)", (4, "data", "(draw)", "", "input 0 of Net")),
        ("y.numpy()[1] = 0", (4, "data", "aten.nll_loss_forward.default", "(outside of modules)", "target")),
        ("shift[0] = 1e-3", (4, "forward", "mine.shifted.default", "", "output 0")),
        ("net.scaled.factor = 1 + 1e-6",
         (4, "forward", "aten.mul.Tensor", "scaled", "number other (1.0 against 1.000001)")),
        ("net.back = 1 + 1e-6", (4, "backward", "aten.mul.Tensor", "", "number other (1.0 against 1.000001)")),
        ("optimizer.param_groups[0]['lr'] = 0.2",
         (4, "optimizer", "aten.add_.Tensor", "(outside of modules)", "number alpha (-0.1 against -0.2)")),
        ("torch.manual_seed(1)", (4, "draws", "aten.bernoulli_.float", "drop", "state of torch's generator (cpu)")),
    ],
)  # fmt: skip
def test_a_planted_difference_is_named(planted: str, expected: tuple[int, str, str, str, str], tmp_path: Path) -> None:
    assert first(located(tmp_path, PLAIN.replace("PLANTED", planted))) == expected


@pytest.mark.parametrize(
    ("program", "optimizer", "expected"),
    [
        (
            GAN,
            "Adam, optimizer 2",
            (6, "forward", "aten.mul.Tensor", "(outside of modules)", "number other (1.0 against 1.5)"),
        ),
        (
            ACCUMULATED,
            "AdamW",
            (2, "forward", "aten.div.Tensor", "(outside of modules)", "number other (4 against 4.1)"),
        ),
        (
            LIGHTNING,
            "SGD",
            (5, "forward", "aten.mul.Tensor", "(outside of modules)", "number other (1.0 against 1.001)"),
        ),
        (WORKERS, "SGD", (3, "data", "(draw)", "", "input 0 of Linear")),
    ],
    ids=["two optimizers", "bf16 and accumulation", "Lightning", "workers of a loader"],
)
def test_programs_of_other_shapes(
    program: str, optimizer: str, expected: tuple[int, str, str, str, str], tmp_path: Path
) -> None:
    found = located(tmp_path, program)
    assert first(found) == expected
    assert found.parting
    assert found.parting.optimizer == optimizer


def test_noise_that_moves_is_followed_to_its_operation(tmp_path: Path) -> None:
    found = located(tmp_path, NOISY)
    step, *rest = first(found)
    assert rest == ["forward", "aten.mul.Tensor", "(outside of modules)", "number other (1.001 against 1.0)"]
    assert 2 <= step <= 7


def test_another_order_of_the_data_comes_with_the_generator_that_gave_it(tmp_path: Path) -> None:
    found = located(tmp_path, ORDER)
    assert first(found) == (1, "data", "(draw)", "", "input 0 of Linear")
    assert found.parting
    assert found.parting.operation
    assert found.parting.operation.kind == "rows in another order"
    assert found.parting.generators["numpy's"] == 1
    assert "torch's (cpu)" not in found.parting.generators
    assert any("numpy's since step 1" in line for line in found.sentences())


def test_the_same_augmentation_in_workers_and_epochs_is_named(tmp_path: Path) -> None:
    found = located(tmp_path, AUGMENTED)
    assert found.parting is None
    begins, is_set = "begins in the same state", "is set to the same state as the examples are made"
    expected = [
        ("Rows", "workers 0 and 1 and in epochs 1 and 2", "its own transforms[0].own", begins),
        ("OfTheModule", "workers 0 and 1 and in epochs 1 and 2", "its own __main__.rng", begins),
        ("Constant", "workers 0 and 1 and in epochs 1 and 2", "numpy's", begins),
        ("ByWorker", "epochs 1 and 2", "numpy's", begins),
        ("Within", "workers 0 and 1 and in epochs 1 and 2", "numpy's", is_set),
        ("EachEpoch", "epochs 1 and 2", "numpy's", begins),
    ]
    said = [sentence.partition(";")[0] for sentence in found.sentences() if sentence.startswith("Same augmentation")]
    assert said == [
        f"Same augmentation: the DataLoader of {name} (8 examples) draws the same random numbers in {places}: the "
        f"generator {generator} {why}"
        for name, places, generator, why in expected
    ]


@pytest.mark.parametrize("processes", [(7, 7), (7, 8)])
def test_what_another_process_draws_is_no_other_epoch(processes: tuple[int, int], tmp_path: Path) -> None:
    lines = [{"process": process, "dataset": "Rows", **facts}
             for number, process in enumerate(processes)
             for facts in ({"begins": number}, {"worker": 0, "drawn": {"numpy's": ["a", "b"]}},
                           {"begins": number, "training": 0})]  # fmt: skip
    (tmp_path / "draws").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(same_draws(tmp_path / "draws")) == (processes == (7, 7))


def test_the_rank_is_named(tmp_path: Path) -> None:
    found = located(tmp_path, RANKS)
    assert first(found) == (3, "data", "(draw)", "", "input 0 of DistributedDataParallel")
    assert found.sentences()[0].startswith("rank 1: the twins part in optimizer step 3")


def test_twins_that_are_equal(tmp_path: Path) -> None:
    failed = "print('Traceback (most recent call last):\\nRuntimeError: rank 1 is broken')"
    found = located(tmp_path, PLAIN.replace("PLANTED", failed))
    assert found.parting is None
    equal, remark, injected = found.sentences()
    assert "equal in all 6 optimizer steps" in equal
    assert remark.startswith("twin 2 ended with exit code 0, but printed a traceback (RuntimeError: rank 1 is broken)")
    assert injected.startswith("Injected by PYTHONPATH")
    assert list(tmp_path.iterdir()) == [tmp_path / "train.py"]  # they ran elsewhere


@pytest.mark.parametrize(
    ("program", "limit", "said"),
    [
        ("print('nothing of torch.optim')", 60, "no torch.optim optimizer made a step"),
        (PLAIN.replace("PLANTED", "raise SystemExit('broken')"), 60, "twin 2: exit code 1; it said last:\n    broken"),
        (PLAIN.replace("PLANTED", "import time; time.sleep(60)"), 3, "no difference in the first 3 optimizer steps"),
        ("open('../data/x.csv')", 60, "which is a copy of yours elsewhere: give absolute paths"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_said(program: str, limit: float, said: str, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError) as error:
        located(tmp_path, program, limit_seconds=limit)
    assert said in str(error.value)


def test_another_number_of_steps_is_a_difference(tmp_path: Path) -> None:
    found = located(tmp_path, PLAIN.replace("PLANTED", "break"))
    assert found.sentences()[1] == "At its end differ: the number of steps: 6 in the first twin, 3 in the second."


def test_a_program_without_torch_or_with_an_isolated_interpreter_is_not_traced(tmp_path: Path) -> None:
    for words in (("-c", "print(1)"), ("-I", "-c", "print(1)")):
        with pytest.raises(IncompleteError, match=r"imported torch with the tracer in it\n  if it has no PyTorch"):
            locate_program(Program((sys.executable, *words), tmp_path))
    for command, hint in (("no-such-program", "check the command"), ("python a.py && b", "bash -c 'python a.py && b'")):
        with pytest.raises(InputError, match=f"cannot be started .*\n.*{hint}"):
            locate_program(Program((command,), tmp_path))
    daemon = "import os, time\nif os.fork(): os._exit(0)\nos.setsid(); time.sleep(60)"
    with pytest.raises(IncompleteError, match="the command ended and left running, now ended: python"):
        locate_program(Program((REAL, "-c", daemon), tmp_path))


@pytest.mark.cold
def test_the_tracer_is_found_by_python_itself_beside_the_programs_own_sitecustomize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("__version__ = '2.4.1'")
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.own = True")
    (tmp_path / "train.py").write_text("import sys, torch; assert sys.own; assert 'injected' not in str(sys.path)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(IncompleteError) as error:
        locate_program(Program((REAL, "train.py"), tmp_path))
    assert "torch 2.4.1 is older than 2.6" in str(error.value)


AUDITED = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(2, 4, 3, stride=2), nn.AdaptiveAvgPool2d(2), nn.Linear(16, 3)
    def forward(self, x):
        out = self.fc(self.pool(self.conv(x)).flatten(1))
        query = out.view(1, 1, 8, 3)
        return (out, F.scaled_dot_product_attention(query, query, query)[0, 0]) if self.training else out
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
def ended(number, frame):  # as torchrun answers
    raise RuntimeError(f"got signal: {number}")
import signal; signal.signal(signal.SIGTERM, ended)
for step in range(1, 1000):
    out, other = net(torch.randn(8, 2, 9, 9))
    (F.cross_entropy(out, y) + F.cross_entropy(other, y)).backward()
    optimizer.step()
    import time; time.sleep(0.01)
"""
)


def test_an_audit_names_operations_of_the_programs_own_steps(
    cli: Cli,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "train.py").write_text(AUDITED)
    alone = {"RANK": "1"}  # left over from elsewhere: there is no group of processes
    heard = operations_of(Program((sys.executable, "-c", START), tmp_path, variables=alone), 2)
    assert heard.remarks == [], "what a program says when it is ended"
    found = audit_calls(heard.reports[0], heard.torch)
    assert {(f.level, f.phase, f.operation, f.module) for f in found.findings} == {
        ("bad", "backward", "aten._adaptive_avg_pool2d_backward.default", "pool"),
        ("note", "forward", "aten._scaled_dot_product_flash_attention_for_cpu.default", ""),
        ("note", "backward", "aten._scaled_dot_product_flash_attention_for_cpu_backward.default", ""),
    }
    assert not found.ok
    assert f"2 optimizer steps on cpu with torch {torch.__version__}" in found.scope()
    write_json(tmp_path / "audit.json", found.facts())
    step = step_of_audit(tmp_path / "audit.json")
    assert step.convolutions == found.convolutions
    assert [(c.operation, c.module, c.x, c.y) for c in step.convolutions[:1]] == [
        ("forward", "conv", (8, 2, 9, 9), (8, 4, 4, 4))
    ]
    assert len(step.convolutions) == 2  # of the two steps each: a forward pass and the gradient of the weights
    assert [other.operation for other in step.others] == ["aten._adaptive_avg_pool2d_backward.default"]
    monkeypatch.setattr("twinrun.twins.tracing.operations_of", lambda program, steps: heard)
    code, out, err = cli("audit", "--", "train")
    answer = "1 kind of call that may give other bits from run to run on CUDA\n"
    assert (code, err) == (4, f"twinrun: {answer}")
    assert out.startswith(answer)
    heard.reports[0]["operations"] += [call | {"module": "other"} for call in heard.reports[0]["operations"]]
    assert cli("audit", "--", "train")[1].startswith("2 kinds of call that may give other bits")


def test_an_audit_says_what_it_knows_nothing_of(tmp_path: Path) -> None:
    call = {"phase": "forward", "operation": "(torch.compile region)", "name": "(torch.compile region)",
            "module": "net", "opaque": True, "arguments": {}, "result": None, "count": 3}  # fmt: skip
    found = audit_calls({"operations": [call], "steps": 1, "ranks": 2}, "2.6.0")
    assert [(f.level, f.kind) for f in found.findings] == [("note", "opaque")]
    assert "another version" in found.scope()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="not written by an audit"):
        step_of_audit(tmp_path / "other.json")
    (tmp_path / "train.py").write_text(PLAIN.replace("PLANTED", "pass"))
    heard = operations_of(Program((sys.executable, "-c", START), tmp_path), 20)
    assert heard.reports[0]["steps"] == 6  # it made no more


COMPILED = (
    HEAD
    + """
net = torch.compile(nn.Linear(6, 3, bias=False))  # matrix products alone: Inductor needs no compiler for these
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
"""
)


def test_what_torch_compile_has_made_is_one_opaque_operation(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(COMPILED)
    heard = operations_of(Program((sys.executable, "-c", START), tmp_path), 2)
    regions = [call for call in heard.reports[0]["operations"] if call["name"] == REGION]
    assert {call["phase"] for call in regions} == {"forward", "backward"}
    assert all(call["opaque"] for call in regions)
    found = audit_calls(heard.reports[0], heard.torch)
    assert {(f.level, f.kind, f.operation) for f in found.findings} == {("note", "opaque", REGION)}
