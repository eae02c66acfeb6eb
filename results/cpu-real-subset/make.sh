#!/usr/bin/env bash
# Makes this folder's results again: results/cpu-real-subset/make.sh DATA [PARAMS]
# DATA holds three data sets and a network's weights (README.md says which and where they are from). With another params
# file than this folder's, what is made stays in a temporary folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
params=${2:-$here/params.yaml}
study=$(mktemp -d)

cp "$params" "$study/params.yaml"
"$here/../../.venv/bin/python" "$here/subset.py" "$data" "$study/data"
ln -s "$data/cifar10-jpeg.tar.xz" "$data/cracks.tar.xz" "$study/data/"
cp -r "$here/models" "$study/"
if [ "$params" = "$here/params.yaml" ]; then
  "$here/../run.sh" "$study" "$here"
else
  "$here/../run.sh" "$study"
fi
