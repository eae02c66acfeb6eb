"""Programs of several processes: ranks of torch.distributed on gloo, and ranks that hang or fail."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from tests.twins.conftest import Twins, warm

# DistributedDataParallel over as many processes as the second word says; the first is what goes wrong in a twin.
RANKS = """
import os, sys, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data.distributed import DistributedSampler

fault, world = sys.argv[1], int(sys.argv[2])
second = os.environ["TWINRUN_TWIN"].split("-")[1] == "2"
os.environ["MASTER_ADDR"] = "127.0.0.1"


def run(rank):
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    inputs = torch.randn(96, 8)
    bucket = 1e-6 if fault == "bucket" and second else 25
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    model = DistributedDataParallel(net, bucket_cap_mb=bucket)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sampler = DistributedSampler(inputs, world, rank, seed=int(fault == "sampler" and second))
    for indices in torch.tensor(list(sampler)).split(8):
        optimizer.zero_grad()
        model(inputs[indices]).square().mean().backward()
        optimizer.step()
    if fault == "rank 1" and rank == 1 and second:
        with torch.no_grad():
            net[0].bias[0] = torch.nextafter(net[0].bias[0], torch.tensor(9.0))
    torch.save(net.state_dict(), f"rank_{rank}.pt")
    dist.destroy_process_group()


for rank in range(world):
    if not os.fork():
        run(rank)
        os._exit(0)
for rank in range(world):
    os.wait()
"""


@pytest.mark.parametrize(
    ("fault", "world", "code", "said"),
    [
        ("none", 2, 0, "verdict: identical: 2 outputs with the same contents in all"),
        ("rank 1", 2, 4, "rank_1.pt: twin 1 against twin 2: 1 of 4 entries differ, the first is ['0.bias']: 1 of 32"),
        ("sampler", 2, 4, "verdict: different, first in rank_0.pt"),
        ("bucket", 2, 0, "verdict: identical"),  # a sum of two numbers has one order
        ("bucket", 3, 4, "verdict: different, first in rank_0.pt"),
    ],
)
def test_every_ranks_outputs_are_compared(run_twins: Twins, fault: str, world: int, code: int, said: str) -> None:
    Path("train.py").write_text(RANKS)
    given, printed = run_twins("-n 2 --arm nd --outputs '*.pt'", warm("train.py", fault, str(world)))
    assert said in printed, printed
    assert given == code
    assert fault != "rank 1" or "rank_0.pt: the same bytes in all 2" in printed


def test_each_twin_has_a_port_of_its_own(run_twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("train.py").write_text("import os; print(os.environ['MASTER_PORT'], os.environ['PET_MASTER_PORT'])")
    run_twins("-n 2", [sys.executable, "train.py"])
    ports = [Path(f"twins/twin_{number}.log").read_text().split() for number in (1, 2)]
    assert ports[0][0] == ports[0][1] != ports[1][0] == ports[1][1]
    monkeypatch.setenv("MASTER_PORT", "29511")
    run_twins("-n 2 --out fixed", [sys.executable, "train.py"])
    assert Path("fixed/twin_1.log").read_text().split()[0] == "29511"


HANGING = """
import os, sys, time
for rank in range(2):
    if not os.fork():
        os.setsid() if "sessions" in sys.argv else None
        open(f"rank_{rank}", "w").write(str(os.getpid()))
        time.sleep(300)
time.sleep(300)
"""


@pytest.mark.parametrize("how", ["together", "sessions"])
def test_ranks_that_hang_are_ended_at_the_limit(run_twins: Twins, how: str) -> None:
    Path("train.py").write_text(HANGING)
    code, said = run_twins("-n 2 --seconds 0.5", [sys.executable, "train.py", how])
    assert code == 3
    assert "twin 2: stopped after the limit of 0.5 seconds, with all of its processes" in said
    for file in Path("twins").glob("twin_*/rank_*"):
        pid = int(file.read_text())
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert len(list(Path("twins").glob("twin_*/rank_*"))) == 4
