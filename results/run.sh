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
  # Nine tenths of the bytes are samples of layers: the report has what they say, a repository need not have them.
  python - "$out/collected" <<'PYTHON'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
study = json.loads((folder / "study.json").read_text())
for task, described in study["tasks"].items():
    (folder / task / "layers.npy").unlink()
    described |= {"layers": [], "layer_rows": []}
(folder / "study.json").write_text(json.dumps(study, indent=2) + "\n")
PYTHON
fi
