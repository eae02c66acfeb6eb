"""A training framework as it is installed: what timm's train.py does, by timm's own functions, in their order.

Lightning's twins are in tests/twins/test_twins.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tests.twins.conftest import Twins, warm

TIMM = """
import os, time, torch
from timm import create_model
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, get_outdir, random_seed, update_summary

random_seed(int(os.environ["TWINRUN_SEED"]), 0)
model = create_model("test_efficientnet", num_classes=2)
optimizer = create_optimizer_v2(model, opt="momentum", lr=0.1)
scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=2)
dataset = create_dataset("", root="data", split="train", is_training=True)
loader = create_loader(dataset, (3, 32, 32), 4, is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.5,
                       num_workers=1, use_prefetcher=False, device=torch.device("cpu"))
out = get_outdir("output", time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}", "test")
saver = CheckpointSaver(model, optimizer, checkpoint_dir=out, recovery_dir=out, max_history=1)
for epoch in range(2):
    losses = AverageMeter()
    for images, targets in loader:
        loss = torch.nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
    scheduler.step(epoch + 1)
    summary = os.path.join(out, "summary.csv")
    update_summary(epoch, {"loss": losses.avg}, {"top1": 50.0}, summary, write_header=epoch == 0)
    saver.save_checkpoint(epoch, metric=losses.avg)
"""


def test_a_training_of_timms_has_identical_twins_and_its_checkpoints_are_read(run_twins: Twins) -> None:
    generator = np.random.default_rng(0)
    for number in range(8):
        folder = Path("data/train", "ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{number}.png")
    Path("train.py").write_text(TIMM)
    outputs = "--outputs 'output/*/test/last.pth.tar' --metric 'output/*/test/summary.csv:train_loss'"
    code, said = run_twins(f"-n 2 {outputs}", warm("train.py"))
    assert code == 0, said
    assert "/test/last.pth.tar: the same bytes in all 2" in said
    code, said = run_twins(f"-n 2 --arm all {outputs} --out other", warm("train.py"))
    assert code == 4
    assert "['optimizer']['state'][0]['momentum_buffer']: " in said
