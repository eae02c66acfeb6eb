#!/usr/bin/env bash
# Installs the project that lies in /opt/twinrun/study into /opt/twinrun/venv; run as root by Dockerfile and apptainer.def.
#   install.sh packages    Python from Debian; everything else by hash from requirements.lock, CUDA and cuDNN included
#   install.sh project     the project itself, its own sample study ready to run, and image.json: what went in
set -euo pipefail
umask 022

home=/opt/twinrun
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt # uv has its own
[ -n "${SOURCE_DATE_EPOCH:-}" ] || unset SOURCE_DATE_EPOCH # apptainer.def sets it empty, which no build tool reads
export PIP_DEFAULT_TIMEOUT=180 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1

# Byte code that is valid without a look at the sources' dates: the same in two builds, and nothing to check at start.
# Files that are not Python of this version (templates, old tests) do not compile; pip leaves them out in silence, too.
compile() {
  $home/venv/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash "$@" >/dev/null || true
}

# Five times as fast as pip, by the same lock. What it leaves is not kept.
by_uv() {
  python3.11 -m venv $home/uv &&
    $home/uv/bin/pip install --quiet --no-compile --require-hashes -r $home/study/requirements-uv.lock &&
    mkdir $home/uv/tmp && # where uv leaves locks
    TMPDIR=$home/uv/tmp UV_CACHE_DIR=$home/uv/cache $home/uv/bin/uv pip install --quiet --python $home/venv/bin/python --require-hashes \
      --build-constraints $home/study/requirements.lock -r $home/study/requirements.lock && return
  echo 'install.sh: uv did not install the packages; pip does' >&2
  return 1
}

# What was made since the step began gets the date $1: of two builds at different times, the same files then have the same
# dates. Files that packages brought keep theirs, by which Python's byte code knows them; nothing that an engine mounts from
# the machine is touched.
begun=$(mktemp)
trap 'rm -f "$begun"' EXIT
date_back() {
  find $home /study /usr /var /etc -xdev -newer "$begun" ! -name resolv.conf ! -name hosts ! -name hostname \
    ! -name localtime ! -name passwd ! -name group -exec touch --no-dereference --date "@$1" {} + 2>/dev/null || true
}

packages() {
  # An Apptainer image that is made from the Docker image has them already.
  if sha256sum --quiet --check $home/packages.sha256 2>/dev/null; then return; fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends python3.11 python3.11-venv >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/debconf/*-old \
    /var/cache/ldconfig/aux-cache /var/lib/dpkg/*-old /var/log/*.log /var/log/apt
  python3.11 -m venv $home/venv
  by_uv || $home/venv/bin/pip install --quiet --no-compile --require-hashes -r $home/study/requirements.lock
  rm -rf $home/uv
  compile $home/venv/lib
  sha256sum $home/study/requirements.lock >$home/packages.sha256
  date_back "$(stat --format %Y /etc/debian_version)" # a date of the base image: this layer is kept from commit to commit
}

project() {
  find $home/study -name __pycache__ -prune -exec rm -r {} +
  rm -rf $home/study/prepared $home/study/data # of an image that this one is made from
  $home/venv/bin/pip install --quiet --no-compile --no-deps --no-build-isolation --force-reinstall $home/study
  rm -rf $home/study/build $home/study/src/*.egg-info
  compile $home/venv/lib/python3.11/site-packages/twinrun

  # The image's copy of the study has no .git; DVC keeps nothing outside the study folder and the scratch folder.
  mkdir -p $home/dvc /study
  printf '[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n' >$home/dvc/config
  touch /study/.nothing-is-mounted-here

  # The sample study, packed: so that a single run needs nothing mounted.
  (
    . $home/study/container/environment.sh
    HOME=$(mktemp -d) DVC_SITE_CACHE_DIR=$(mktemp -d); export HOME DVC_SITE_CACHE_DIR
    cd $home/study
    dvc pull --quiet --remote datastore data.dvc
    twinrun prepare
    rm -rf .dvc/cache .dvc/tmp "$HOME" "$DVC_SITE_CACHE_DIR"
  )
  $home/venv/bin/python $home/study/container/describe.py >$home/image.json
  # The bill of materials, by the lock; it ends the build where something else is installed.
  $home/venv/bin/python $home/study/container/bom.py $home/study/requirements.lock >$home/bom.json
  chmod -R a+rX,go-w $home/study
  if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
    find $home/study -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} + # a checkout's dates are its own
    date_back "$SOURCE_DATE_EPOCH"
  fi
}

case "${1:-}" in
  packages | project) "$1" ;;
  *) echo 'install.sh packages, then install.sh project' >&2; exit 2 ;;
esac
