#!/usr/bin/env bash
# Seconds of ARTIFACT.md's claims that need neither containers nor hours: in a fresh clone of its own, after
# `make environment`; prints the rows of artifact.csv. A claim that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH DVC_NO_ANALYTICS=1
copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
commit=$(git rev-parse --short HEAD)
machine="$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"

# timed CLAIM CODE COMMAND: the command must end with that code.
timed() {
  local begin=$EPOCHREALTIME found=0
  bash -ec "$3" >&2 || found=$?
  [ "$found" = "$2" ] || { echo "artifact.sh: $1 ends with exit code $found, not $2" >&2; exit 1; }
  printf '%s,%.1f,%s,"%s"\n' "$1" "$(awk "BEGIN {print $EPOCHREALTIME - $begin}")" "$commit" "$machine"
}

page_of() { echo "cp -r results/$1 '$copies/' && cd '$copies/$1' && twinrun analyze && twinrun report"; }

echo claim,seconds,commit,machine
timed C1 0 'twinrun reanalyze thesis'
timed C2 0 "$(page_of cpu-real-subset)"
timed C3 0 "$(page_of cpu-sources)"
timed C4 0 'twinrun doctor'
timed P1 0 'dvc pull data.dvc && dvc repro prepare && twinrun verify --first'
timed P3 0 'make study'
timed P4 0 'make study'
timed P5 4 'twinrun locate digits/sgd/0/det_1 nd_1'
timed P6 0 'twinrun verify --replay --first'
timed P7 0 "pip install --quiet --editable '.[ro-crate]' && twinrun export --to ro-crate && cp -r data export/ro-crate/ &&
  cd export/ro-crate && twinrun prepare digits && twinrun verify digits/sgd/42/det_1"
