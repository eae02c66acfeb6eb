#!/usr/bin/env bash
# Makes this folder's results again, from the sample data of the repository (`dvc pull data.dvc` puts them in place).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
study=$(mktemp -d)

cp "$here/../../studies/sources.yaml" "$study/params.yaml"
mkdir "$study/data"
ln -s "$(cd "$here/../../data" && pwd)/sample" "$study/data/sample"
"$here/../run.sh" "$study" "$here"
rm "$here/report/index.html" # megabytes that `twinrun analyze` and `twinrun report` make of collected/ in half a minute
