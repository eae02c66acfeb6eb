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
