#!/usr/bin/env bash
# What a run takes but for its epochs, on the host, in Docker and in Apptainer: start_up.sh STUDY, as root, after .ci/engines.
# STUDY is a checkout with prepared data whose params hold digits/sgd/42/det_1. The writing of the record and the end of the
# container are in it; five runs each.
set -euo pipefail
study=$(realpath "${1:?the study}")
run=digits/sgd/42/det_1
sif=$(ls /var/cache/twinrun-ci/*.sif)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

on_host() { (cd "$study" && twinrun train $run --out "$out"); }
in_docker() {
  docker run --rm --network=none --read-only --tmpfs /tmp -v "$study:/study:ro" -v "$out:/out" -u 4321:4321 twinrun:ci \
    train $run --out /out
}
in_apptainer() {
  setpriv --reuid=hpc --regid=hpc --init-groups env HOME=/home/hpc apptainer run --cleanenv --no-home \
    --bind "$study:/study:ro" --bind "$out:/out" --pwd /study "$sif" train $run --out /out
}

for way in on_host in_docker in_apptainer; do
  for _ in 1 2 3 4 5; do
    rm -rf "${out:?}"/*
    chmod 777 "$out"
    begin=$(date +%s.%N)
    $way >/dev/null 2>&1
    end=$(date +%s.%N)
    python3 - "$begin" "$end" "$out/$run/measured.json" <<'PYTHON'
import json, sys
run = json.load(open(sys.argv[3]))
print(f"{float(sys.argv[2]) - float(sys.argv[1]) - run['train_seconds'] - run['eval_seconds']:.2f}", end=" ")
PYTHON
  done
  echo "s  $way"
done
