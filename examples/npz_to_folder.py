"""MedMNIST's .npz to a folder for the reader image_folder, with train/, val/ and test/.

python examples/npz_to_folder.py breastmnist.npz data/breast malignant benign     # class names of the labels 0, 1, ...
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

source, out, *names = sys.argv[1:]
arrays = np.load(source)
for part in ("train", "val", "test"):
    for number, (image, label) in enumerate(
        zip(arrays[f"{part}_images"], arrays[f"{part}_labels"].ravel(), strict=True)
    ):
        folder = Path(out, part, names[label])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:06d}.png")
