"""The subsets of this study; python subset.py DATA OUT writes a table of CIFAR-10 images, tiles and a folder.

- CIFAR-10: of three classes the first 800 training and 300 test images by the SHA-256 of their names.
- SDNET2018: every tile as its dark lines. The mean of 41 x 41 pixels around each pixel is taken away and what is left
  raised 2.5 times, then of each 4 x 4 pixels the darkest is kept: a hairline crack, which ordinary shrinking averages
  away, stays black in a tile of 64 x 64. Names, and with them photos and split, stay.
- BreastMNIST: whole.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

CLASSES = ["automobile", "frog", "horse"]
TRAIN, TEST = 800, 300  # of each class
BACKGROUND, CONTRAST, BLOCK = 41, 2.5, 4


def first(split: str, name: str, count: int, wanted: int) -> list[str]:
    """The first images of a class in the order of their names' digests."""
    paths = [f"{split}/{name}/{number:04d}.jpg" for number in range(count)]
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())[:wanted]


def dark_lines(tile: Image.Image) -> Image.Image:
    """The tile's dark lines, a quarter as wide and high."""
    gray = np.asarray(tile.convert("L"), np.float64)
    lifted = np.clip(128 + CONTRAST * (uniform_filter(gray, 3) - uniform_filter(gray, BACKGROUND)), 0, 255)
    rows, columns = (side // BLOCK for side in gray.shape)
    blocks = lifted[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return Image.fromarray(blocks.min((1, 3)).astype(np.uint8))


data, out = map(Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
table = ["path,label,split"]
for name in CLASSES:
    table += [f"{path},{name},train" for path in first("train", name, 5000, TRAIN)]
    table += [f"{path},{name},test" for path in first("test", name, 1000, TEST)]
(out / "cifar10-subset.csv").write_text("\n".join(table) + "\n")

with tarfile.open(data / "cracks.tar.xz") as archive:
    for member in archive:
        if member.name.endswith(".jpg"):
            path = out / "cracks" / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            tile = archive.extractfile(member)
            assert tile is not None
            dark_lines(Image.open(io.BytesIO(tile.read()))).save(path, quality=95)

converter = Path(__file__).parents[2] / "examples" / "npz_to_folder.py"
subprocess.run([sys.executable, converter, data / "breastmnist.npz", out / "breast", "malignant", "benign"], check=True)
