"""The same with Lightning: its own seeding and deterministic mode, the seed from TWINRUN_SEED.

    pip install lightning
    twinrun twins -n 3 --outputs 'out/*' --metric out/metrics.json:accuracy -- python with_lightning.py

Nothing of twinrun is imported: any program that takes its seed from the environment can have twins.
"""

import json
import os
from pathlib import Path

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))

    def training_step(self, batch, index):
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch, index):
        images, labels = batch
        self.log("accuracy", (self.layers(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


lightning.seed_everything(int(os.environ.get("TWINRUN_SEED", "0")), workers=True)
images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
data = TensorDataset(images.float() / 16, labels)
train = torch.utils.data.Subset(data, range(1200))
test = torch.utils.data.Subset(data, range(1200, len(data)))
model = Digits()
trainer = lightning.Trainer(
    max_epochs=2,
    accelerator="cpu",
    devices=1,
    deterministic=os.environ.get("TWINRUN_ARM", "det") == "det",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, DataLoader(train, batch_size=64, shuffle=True), DataLoader(test, batch_size=len(test)))
out = Path("out")
out.mkdir(exist_ok=True)
torch.save(model.state_dict(), out / "model.pt")
(out / "metrics.json").write_text(json.dumps({"accuracy": trainer.callback_metrics["accuracy"].item()}))
