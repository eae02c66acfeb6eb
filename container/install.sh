#!/usr/bin/env bash
# Installs the project that lies in /opt/twinrun/study into /opt/twinrun/venv; run as root by Dockerfile and apptainer.def.
# Python from Debian; everything else by hash from requirements.lock, CUDA and cuDNN included.
set -euo pipefail

home=/opt/twinrun
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3.11 python3.11-venv >/dev/null
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache

# Byte code by content and not by date: it stays valid in any layer, and two builds have the same.
export SOURCE_DATE_EPOCH=0 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
python3.11 -m venv $home/venv
$home/venv/bin/pip install --quiet --require-hashes -r $home/study/requirements.lock
$home/venv/bin/pip install --quiet --no-deps --no-build-isolation $home/study
rm -rf $home/study/build $home/study/src/*.egg-info

# The image's copy of the study has no .git; DVC keeps nothing outside the study folder and /tmp.
mkdir -p $home/dvc/dvc
printf '[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n' > $home/dvc/dvc/config

# What went in: for people and for comparing two images.
$home/venv/bin/python - <<'PYTHON' > $home/image.json
import json, platform, subprocess
from importlib import metadata
from twinrun.study.records import current_code_digest

debian = subprocess.run(["dpkg-query", "-W", "-f", "${Package}=${Version}\n"], capture_output=True, text=True, check=True)
facts = {
    "code_digest": current_code_digest(),
    "python": platform.python_version(),
    "python_packages": {d.metadata["Name"].lower(): d.version for d in metadata.distributions()},
    "debian_packages": dict(line.split("=", 1) for line in debian.stdout.split()),
}
print(json.dumps(facts, sort_keys=True, indent=2))
PYTHON
chmod -R a+rX $home
