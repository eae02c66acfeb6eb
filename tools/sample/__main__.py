"""Build the sample study's archives again, the same to the byte: python -m tools.sample [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.sample.build import build_sample

if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "data/sample")
    for name, digest in build_sample(out).items():
        print(f"{digest}  {out / name}")
