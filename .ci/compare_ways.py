"""Hold the same study, run in several ways, against expected/ and against one another: NAME=FOLDER ...

Prints one table, way of running x final fingerprint of each deterministic run. Exit 1 when a fingerprint is not the
expected one, or when a deterministic file or what `twinrun collect` makes of the deterministic runs differs by a byte.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from twinrun.study.layout import COMPUTED_FILES, RECORD, Layout
from twinrun.study.params import read_params
from twinrun.study.records import read_record


def deterministic_files(root: Path) -> dict[str, str]:
    """SHA-256 of the computed files of every deterministic run, and of what is collected from these runs alone."""
    params = read_params(root / "params.yaml")
    files = {
        f"{run.id}/{name}": Layout(root).run(run) / name
        for run in params.runs
        if not run.free_noise
        for name in (RECORD, *COMPUTED_FILES)
    }
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder)
        text = (root / "params.yaml").read_text()
        (alone / "params.yaml").write_text(text.replace("runs: [det_1, nd_1]", "runs: [det_1]"))
        for name in ("prepared", "runs"):
            (alone / name).symlink_to(root / name)
        subprocess.run([sys.executable, "-m", "twinrun", "collect"], cwd=alone, check=True, stdout=subprocess.DEVNULL)
        collected = alone / "collected"
        files |= {str(file.relative_to(alone)): file for file in collected.rglob("*") if file.is_file()}
        for name in ("measured.csv", "digests.json"):  # what was measured may differ, and with it its digest
            del files[f"collected/{name}"]
        return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def main() -> int:
    """Print the table and what is wrong."""
    ways = {name: Path(folder).resolve() for name, folder in (item.split("=", 1) for item in sys.argv[1:])}
    first = next(iter(ways.values()))
    runs = [run for run in read_params(first / "params.yaml").runs if not run.free_noise]
    expected = json.loads(Layout(first).expected.read_text())["runs"]
    rows = {"expected/": [[expected[run.id]["initial"], *expected[run.id]["epochs"]] for run in runs]}
    for name, root in ways.items():
        records = [read_record(Layout(root).run(run), check_files=True) for run in runs]
        rows[name] = [[record.initial_fingerprint, *record.fingerprints] for record in records]
    wrong = [f"{name}: {run.id} has other fingerprints than expected/"
             for name, row in rows.items() for run, found, wanted in zip(runs, row, rows["expected/"], strict=True)
             if found != wanted]  # fmt: skip

    width = max(map(len, rows))
    print(" " * width, *(f"{run.task}/{run.optimizer}"[:16].ljust(16) for run in runs))
    for name, row in rows.items():
        print(name.ljust(width), *(prints[-1][:16] for prints in row))

    files = {name: deterministic_files(root) for name, root in ways.items()}
    reference = files[next(iter(ways))]
    for name, found in files.items():
        wrong += [f"{name}: {file} differs" for file in sorted(found.keys() | reference.keys())
                  if found.get(file) != reference.get(file)]  # fmt: skip
    print(f"{len(reference)} deterministic and collected files, {len(ways)} ways: ", end="")
    print("\n  ".join(wrong) if wrong else "byte for byte the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
