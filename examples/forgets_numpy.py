"""A script that seeds torch and forgets numpy, as many do: every start mirrors other images.

twinrun locate -- python forgets_numpy.py
"""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Patterns(Dataset):
    def __init__(self) -> None:
        self.labels = torch.arange(256) % 4
        self.images = torch.randn(4, 1, 8, 8)[self.labels] + torch.randn(256, 1, 8, 8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        mirrored = np.random.rand() < 0.5  # noqa: NPY002 - the fault that is shown
        return image.flip(-1) if mirrored else image, self.labels[index]


torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for images, labels in DataLoader(Patterns(), batch_size=32, shuffle=True):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
