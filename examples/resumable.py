"""A plain PyTorch training that goes on from its last checkpoint and ends with the same bits as if never interrupted.

    twinrun twins -n 4 --interrupt random -- python resumable.py

`python resumable.py optimizer` (or scheduler, generator, position, `generator file`) forgets to restore that, to show
what `twinrun twins --interrupt` says of it.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

forgets = sys.argv[1:]
torch.manual_seed(0)
noise = np.random.default_rng(0)
inputs = torch.randn(64, 4)
targets = inputs.sum(1, keepdim=True)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
order, position, epoch, step = [], 0, 0, 0

last = Path("last.pt")
if last.exists():
    state = torch.load(last, weights_only=False)
    model.load_state_dict(state["model"])
    if "optimizer" not in forgets:
        optimizer.load_state_dict(state["optimizer"])
    if "scheduler" not in forgets:
        scheduler.load_state_dict(state["scheduler"])
    if "generator" not in forgets:
        torch.set_rng_state(state["rng"]["torch"])
        noise.bit_generator.state = state["rng"]["numpy"]
    epoch, step = state["epoch"], state["step"]
    if "position" not in forgets:
        order, position = state["sampler"]["order"], state["sampler"]["position"]

while epoch < 5:
    order = order or torch.randperm(64).tolist()
    while position < 64:
        batch = order[position : position + 8]
        position, step = position + 8, step + 1
        noisy = inputs[batch] + 0.01 * torch.from_numpy(noise.standard_normal((8, 4), np.float32))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(noisy), targets[batch]).backward()
        optimizer.step()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": epoch,
            "step": step,
            "sampler": {"order": order, "position": position},
            "rng": {"torch": torch.get_rng_state(), "numpy": noise.bit_generator.state},
        }
        if "file" in forgets:
            del state["rng"]
        torch.save(state, "new.pt")
        Path("new.pt").replace(last)  # only when it is whole: a kill at any moment leaves the old or the new one
        time.sleep(0.005)  # in place of a larger model
        if position == 32:
            print("middle of epoch", epoch, flush=True)
    order, position, epoch = [], 0, epoch + 1
    scheduler.step()
torch.save(state, "final.pt")
