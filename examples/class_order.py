"""A fault that one start never shows: class numbers follow the order of a set, and that follows the hash seed.

twinrun twins -n 3 --arm nd -- python class_order.py
"""

import json
from pathlib import Path

names = {
    f"class_{word}" for word in ("crack", "spall", "rust", "clean", "stain", "spot", "hole", "joint", "moss", "wet")
}
labels = {name: number for number, name in enumerate(names)}  # `sorted(names)` mends it
Path("labels.json").write_text(json.dumps(labels, sort_keys=True))
print(len(labels), "classes")
