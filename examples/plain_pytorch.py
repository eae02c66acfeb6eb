"""A plain PyTorch training script whose twins are identical: the seed comes from outside, results go to out/.

    twinrun twins -n 3 --outputs 'out/*' --metric out/metrics.json:accuracy -- python plain_pytorch.py

`--arm nd` leaves the ordinary environment, `--arm all` gives each twin a seed of its own.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

import twinrun


def train() -> tuple[nn.Module, float]:
    images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    images = images.float() / 16
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        for batch in torch.randperm(1200).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()
    return model, (model(images[1200:]).argmax(dim=1) == labels[1200:]).float().mean().item()


# The seed and the arm that `twinrun twins` chose; seed 0 and deterministic mode when the script is run alone.
with twinrun.controlled() as control:
    model, accuracy = train()
out = Path("out")
out.mkdir(exist_ok=True)
save_file(model.state_dict(), out / "model.safetensors")
(out / "metrics.json").write_text(json.dumps({"accuracy": accuracy, "seed": control.seed}))
print(twinrun.fingerprint(model))
