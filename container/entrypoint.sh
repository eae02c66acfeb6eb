#!/bin/bash -p
# Entry point of both images: `dvc ...`, `bash` and `python` by name, anything else is a twinrun command.
# -p: without the functions and the BASH_ENV of the user's shell.
set -euo pipefail
. /opt/twinrun/study/container/environment.sh

fail() {
  printf 'twinrun: %s\n  %s\n' "$1" "$2" >&2
  exit 2
}

# A user id without an entry or a home, and a read-only root: what programs write besides the study goes here.
[ -d "${TMPDIR:-}" ] && [ -w "$TMPDIR" ] || TMPDIR=/tmp
usable() { # DVC's own databases fill most of a megabyte
  mkdir -p -m 700 "$1" && [ -O "$1" ] && { head -c 1M /dev/zero >"$1/probe.$$" || ! rm -f "$1/probe.$$"; } && rm "$1/probe.$$"
}
scratch=$TMPDIR/twinrun-$(id -u)
# Somebody else may have made a folder of that name: user ids are not the same in every container.
{ usable "$scratch" || { scratch=$(mktemp -d "$TMPDIR/twinrun-XXXXXX") && usable "$scratch"; }; } 2>/dev/null ||
  fail "$TMPDIR cannot be written, or is full: 1 MB is needed, 64 MB are better" "docker run --read-only needs --tmpfs /tmp; apptainer uses the machine's /tmp, or TMPDIR"
export TMPDIR HOME=$scratch
export LOGNAME=${LOGNAME:-twinrun} # torch asks for the name of the user, and fails where there is none
export DVC_SITE_CACHE_DIR=$scratch/dvc-site MPLCONFIGDIR=$scratch/matplotlib

case "${1:-}" in
  '') exec twinrun --help ;;
  bash | sh | python) exec "$@" ;;
esac

# Where nothing is mounted, the image's own copy of the sample study runs: in the scratch folder, for it is written to.
if [ -e /study/.nothing-is-mounted-here ] && [ "$PWD" = /study ]; then
  image=$(sha256sum /opt/twinrun/image.json)
  study=$scratch/study-${image:0:12}
  if [ ! -d "$study" ]; then
    { rm -rf "$study.$$" && cp -r /opt/twinrun/study "$study.$$" && mv -T "$study.$$" "$study"; } 2>/dev/null ||
      { rm -rf "$study.$$"; fail "the image's own study cannot be copied to $study: the disk is full, or cannot be written" \
        "give more space to $TMPDIR, or mount a study on /study"; }
  fi
  cd "$study"
fi

if [ "$1" = dvc ]; then
  [ -d .dvc ] && [ -e dvc.yaml ] && [ -e params.yaml ] ||
    fail "$PWD is not a checkout of the study: .dvc, dvc.yaml or params.yaml is missing" \
      "mount one on /study: docker run -v \"\$PWD:/study\", or apptainer run --bind \"\$PWD:/study\" --pwd /study"
  [ -w . ] && [ -w .dvc ] ||
    fail "$PWD cannot be written by user $(id -u); it belongs to user $(stat -c %u .)" \
      "run as its owner (docker run -u \$(id -u):\$(id -g)), mount it without :ro, or make a copy of your own"
  # In a fresh clone the sample data are still in datastore/; of other data, only who knows their remote can fetch them.
  if [ "${2:-}" = repro ] && [ -e data.dvc ] && [ ! -e data/sample ]; then dvc pull --quiet --remote datastore data.dvc; fi
  exec "$@"
fi
exec twinrun "$@"
