#!/bin/bash
# Entry point of both images: `dvc ...`, `bash` and other programs by name, anything else is a twinrun command.
set -euo pipefail

# The pinned variables of a run are set by twinrun itself, for each run; here is only what the programs need to start.
export PATH=/opt/twinrun/venv/bin:/usr/local/bin:/usr/bin:/bin
export DVC_SYSTEM_CONFIG_DIR=/opt/twinrun/dvc DVC_NO_ANALYTICS=1 SHELL=/bin/bash PYTHONNOUSERSITE=1
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP LD_PRELOAD || true

# A user id without an entry or a home, and a read-only root: what programs write goes to /tmp.
scratch=${TMPDIR:-/tmp}/twinrun-$(id -u)
mkdir -p "$scratch"
[ -w "${HOME:-/}" ] || export HOME=$scratch
export LOGNAME=${LOGNAME:-twinrun}  # torch asks for the name of the user, and fails where there is none
export DVC_SITE_CACHE_DIR=${DVC_SITE_CACHE_DIR:-$scratch/dvc-site} MPLCONFIGDIR=$scratch/matplotlib

# Without a study mounted, the image's own copy runs: in /tmp, for the image is read-only.
if [ ! -e params.yaml ] && [ "${1:-}" = dvc ]; then
  cp -r /opt/twinrun/study "$scratch/study"
  cd "$scratch/study"
  dvc pull --quiet data.dvc
fi

case "${1:-}" in
  '') exec twinrun --help ;;
  dvc | bash | sh | python) exec "$@" ;;
  *) exec twinrun "$@" ;;
esac
