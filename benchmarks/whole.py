"""Wall time and peak memory of a whole command with all its children (proportional set size, sampled).

python benchmarks/whole.py make study
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import psutil


def main() -> None:
    begin, peak = time.monotonic(), 0
    process = subprocess.Popen(sys.argv[1:])
    while process.poll() is None:
        total = 0
        with contextlib.suppress(psutil.Error):
            for member in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += member.memory_full_info().pss
        peak = max(peak, total)
        time.sleep(0.2)
    print(f"{time.monotonic() - begin:.1f} s, peak memory {peak / 1e9:.2f} GB, exit {process.returncode}")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
