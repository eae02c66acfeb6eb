"""The subsets of this study: a table of CIFAR-10 images, and BreastMNIST as a folder; python subset.py DATA OUT.

Of each class of CIFAR-10 the first 200 training and 100 test images by the SHA-256 of their names; the training images
from the 250th to the 349th are the part `val`, on which the recipes were chosen. BreastMNIST is whole.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN, VALIDATION, TEST = slice(200), slice(250, 350), slice(100)  # of each class


def ranked(split: str, name: str, count: int) -> list[str]:
    """The images of a class in the order of their names' digests."""
    paths = [f"{split}/{name}/{number:04d}.jpg" for number in range(count)]
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())


data, out = map(Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
rows = ["path,label,split"]
for name in CLASSES:
    train = ranked("train", name, 5000)
    rows += [f"{path},{name},train" for path in train[TRAIN]]
    rows += [f"{path},{name},val" for path in train[VALIDATION]]
    rows += [f"{path},{name},test" for path in ranked("test", name, 1000)[TEST]]
(out / "cifar10-subset.csv").write_text("\n".join(rows) + "\n")
converter = Path(__file__).parents[2] / "examples" / "npz_to_folder.py"
subprocess.run([sys.executable, converter, data / "breastmnist.npz", out / "breast", "malignant", "benign"], check=True)
