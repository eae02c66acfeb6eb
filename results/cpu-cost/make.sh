#!/usr/bin/env bash
# Measures what the same bits cost on this machine's processor: results/cpu-cost/make.sh [--short] [BLOCKS]
# For an otherwise idle machine, after `make study`; six blocks are the default. --short measures half a second each time and
# trains the full-width network on batches of 32. Stopped, it begins anew. Leaves its results in a folder here that is
# named for the processor, with the seconds that all took in machine.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export PATH=$root/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
short='' each=() full=()
if [ "${1:-}" = --short ]; then
  short=-short each=(--seconds 0.5 --warmup 0.3) full=(--batch-size 32)
  shift
fi
blocks=${1:-6}
machine=$(sed -n '/^model name/{s/^model name\s*: //p;q}' /proc/cpuinfo | sed 's/([^)]*)//g; s/ @.*//' | tr -sc '[:alnum:]\n' '_' |
  tr '[:upper:]' '[:lower:]' | sed 's/_$//')
out=$here/$machine-$(nproc)$short
study=$(mktemp -d)
trap 'rm -rf "$study"' EXIT
mkdir -p "$out"

cp "$root/params.yaml" "$study/"
ln -s "$root/data" "$study/data"
(cd "$root" && python benchmarks/gpu_study.py "$study/full" --device cpu --full --task preactresnet18 --images 256)
cd "$study"
twinrun prepare
for task in digits cracks mammograms; do
  twinrun cost "$task" --optimizer sgd --device cpu --blocks "$blocks" ${each[@]+"${each[@]}"} | tee "$out/$task.txt"
done
cd full
twinrun cost preactresnet18 --device cpu --blocks "$blocks" ${each[@]+"${each[@]}"} ${full[@]+"${full[@]}"} |
  tee "$out/preactresnet18.txt"
{ git -C "$root" rev-parse HEAD; echo "$SECONDS s"; uptime; lscpu; } >"$out/machine.txt"
# The median of each measurement is what all that is printed is made of.
python - "$out" "$study"/cost/*.json "$study"/full/cost/*.json <<'PYTHON'
import json, pathlib, statistics, sys

for path in map(pathlib.Path, sys.argv[2:]):
    content = json.loads(path.read_text())
    for measured in (measured for block in content["blocks"] for measured in block):
        measured["steps"] = len(measured["step_seconds"])
        measured["step_seconds"] = [statistics.median(measured["step_seconds"])]
        measured["host"]["hostname"] = ""
    (pathlib.Path(sys.argv[1]) / path.name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
PYTHON
