#!/usr/bin/env bash
# Runs the study in folder $1 from packing to report, beside the repository and without DVC; collected/ and report/ go to
# the folder $2, if given.
set -euo pipefail
export PATH=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
out=${2:+$(cd "$2" && pwd)}
cd "$1"
begin=$SECONDS
twinrun prepare
twinrun sweep --no-record
twinrun collect
twinrun locate --all
twinrun analyze
twinrun report
echo "$((SECONDS - begin)) s, in $1"
if [ -n "$out" ]; then
  python - "$out/collected/results.csv" collected/results.csv <<'PYTHON'
import pathlib, sys
import pandas as pd

before, now = (pd.read_csv(path) if pathlib.Path(path).is_file() else None for path in sys.argv[1:])
if before is not None:
    both = before.merge(now, on=["task", "optimizer", "seed", "label"]).query("arm_x == 'det'")
    same = int((both["fingerprint_x"] == both["fingerprint_y"]).sum())
    print(f"{same} of {len(both)} deterministic runs have the fingerprints of {sys.argv[1]}")
PYTHON
  rm -rf "$out/collected" "$out/report"
  cp -r collected report "$out/"
  [ ! -e analysis/figures/sources.png ] || cp analysis/figures/sources.png "$out/"
  # Most of the bytes are layers and features: the report has what they say, a repository need not have them.
  python - "$out/collected" <<'PYTHON'
import json, pathlib, sys
from twinrun.collect.load import write_digests

folder = pathlib.Path(sys.argv[1])
study = json.loads((folder / "study.json").read_text())
for task, described in study["tasks"].items():
    for name in ("layers.npy", "features.npy"):
        (folder / task / name).unlink(missing_ok=True)
    described |= {"layers": [], "layer_rows": [], "features_shape": None}
(folder / "study.json").write_text(json.dumps(study, indent=2) + "\n")
write_digests(folder)
PYTHON
fi
