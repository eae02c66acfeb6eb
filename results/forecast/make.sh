#!/usr/bin/env bash
# Makes this folder's tables and figure again, in about a minute and without a GPU; PYTHON names another interpreter.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
PYTHONPATH=src ${PYTHON:-python} "$here/make.py" "$here"
