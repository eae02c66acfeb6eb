#!/usr/bin/env bash
# Measures what determinism costs examples/attention.py on this machine's processor: results/program-cost/make.sh [BLOCKS]
# For an otherwise idle machine, from an ordinary shell: variables that pin threads or instructions leave rungs out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export PATH=$root/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$root/examples/attention.py" "$folder"
cd "$folder"
twinrun cost --blocks "${1:-6}" --warmup 0.2 --seconds 0.3 --json cost.json -- python attention.py 2>messages >table
echo 'docs/cost.md shows:'
grep -E '^(cost on|left out)' messages
grep -v '^measurements in' table
python - "$here" "$SECONDS" <<'PYTHON'
import json, os, pathlib, statistics, subprocess, sys

# The median of each measurement is what all that is printed is made of.
here, content = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path("cost.json").read_text())
for measured in (measured for block in content["blocks"] for measured in block):
    measured["steps"] = len(measured["step_seconds"])
    measured["step_seconds"] = [statistics.median(measured["step_seconds"])]
(here / "attention.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
first = content["blocks"][0][0]
commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, check=True, capture_output=True, text=True).stdout
made = {"code_commit": commit.strip(), "torch": first["versions"]["torch"], "cpu": first["host"]["cpu"],
        "cores": os.cpu_count(), "load_at_the_end": os.getloadavg(),
        "seconds": int(sys.argv[2])}
(here / "made.json").write_text(json.dumps(made, indent=2, sort_keys=True) + "\n")
PYTHON
