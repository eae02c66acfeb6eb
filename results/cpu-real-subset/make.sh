#!/usr/bin/env bash
# Makes this folder's results again: results/cpu-real-subset/make.sh DATA [PARAMS]
# DATA holds cifar10-jpeg.tar.xz, cracks.tar.xz and breastmnist.npz (README.md says where they are from). With another
# params file than this folder's, what is made stays in a temporary folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
params=${2:-$here/params.yaml}
study=$(mktemp -d)
export PATH=$here/../../.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1

cp "$params" "$study/params.yaml"
cd "$study"
python "$here/subset.py" "$data" data
ln -s "$data/cifar10-jpeg.tar.xz" "$data/cracks.tar.xz" data/
begin=$SECONDS
twinrun prepare
twinrun sweep --no-record
twinrun collect
twinrun locate --all
twinrun analyze
twinrun report
echo "$((SECONDS - begin)) s, in $study"
if [ "$params" = "$here/params.yaml" ]; then
  rm -rf "$here/collected" "$here/report"
  cp -r collected report "$here/"
fi
