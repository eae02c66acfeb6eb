#!/usr/bin/env bash
# Downloads the wheels that a machine with a card may lack, in the versions of the lock:
#   benchmarks/gpu15_wheels.sh FOLDER [PYTHON_VERSION]         # of that machine's Python; default: 3.12
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
wanted=()
for name in pydantic pydantic-core annotated-types typing-inspection typing-extensions pydicom; do
  wanted+=("$(grep -oE "^$name==[^ ]+" "$root/requirements.lock")")
done
"$root/.venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version "${2:-3.12}" --implementation cp --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --dest "$1" "${wanted[@]}"
