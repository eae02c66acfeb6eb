#!/usr/bin/env bash
# A card's quarter of an hour: everything that needs one, in order, within 470 seconds. Call it again and it goes on.
# LONG=1: the same at length, and studies of real images, without a limit.
#   OUT=folder [COMMIT=hash] [DATA=folder] [WHEELS=folder] [LIMIT=470] [LONG=1] [DEVICE=cpu] [PYTHON=python3] benchmarks/gpu15.sh [PART...]
# benchmarks/README.md says what is needed; benchmarks/gpu15.py what the parts are.
set -euo pipefail
: "${OUT:?gpu15.sh: OUT names the folder for the results}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
[ -z "${DATA:-}" ] || DATA=$(realpath "$DATA")
[ -z "${WHEELS:-}" ] || WHEELS=$(realpath "$WHEELS")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} state=${STATE:-$PWD/.gpu15${LONG:+-long}}
# What a carried wheel brings goes before nothing of the machine's own: its path is added, not put in place of others.
path=$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
  for wheel in "$WHEELS"/*.whl; do
    [ -e "$state/site/.${wheel##*/}" ] && continue
    mkdir -p "$state/site" && "$python" -m zipfile -e "$wheel" "$state/site" && touch "$state/site/.${wheel##*/}"
  done
  path=$path:$state/site
fi
PYTHONPATH=$path exec "$python" benchmarks/gpu15.py --out "$OUT" --state "$state" ${LIMIT:+--limit "$LIMIT"} ${LONG:+--long} \
  --device "${DEVICE:-cuda}" ${COMMIT:+--commit "$COMMIT"} ${DATA:+--data "$DATA"} "$@"
