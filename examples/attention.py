"""A small vision transformer in plain PyTorch, as a program whose cost of determinism is measured.

twinrun cost -- python attention.py
"""

import torch
from torch import nn

torch.manual_seed(0)


class Patches(nn.Module):
    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 4, stride=4)
        self.place = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0) for _ in range(2))
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(images).flatten(2).transpose(1, 2) + self.place
        tokens = tokens.transpose(0, 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(0))


model = Patches()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
images, labels = torch.randn(512, 3, 32, 32), torch.arange(512) % 10
for _ in range(1000):
    for batch in torch.randperm(512).split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
