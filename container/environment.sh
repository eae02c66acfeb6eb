# shellcheck shell=sh
# The environment of both images, read by the entry point and by Apptainer. The pinned variables of a run are not here:
# twinrun sets them itself, for each run.
export PATH=/opt/twinrun/venv/bin:/usr/local/bin:/usr/bin:/bin
export PYTHONNOUSERSITE=1 LC_ALL=C.UTF-8 SHELL=/bin/bash
# DVC's settings are the image's and the study's: none of the user's, and no git, which the image has not.
export DVC_SYSTEM_CONFIG_DIR=/opt/twinrun/dvc DVC_GLOBAL_CONFIG_DIR=/opt/twinrun/dvc DVC_NO_ANALYTICS=1
# What Apptainer would let in from the user's shell; empty, for it does not heed an `unset`.
for name in PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONWARNINGS PYTHONOPTIMIZE LD_PRELOAD BASH_ENV ENV \
  VIRTUAL_ENV MPLBACKEND MATPLOTLIBRC DVC_ROOT DVC_EXP_AUTO_PUSH; do
  export "$name="
done
unset name
# Of library paths only the one in which `--nv` puts the driver.
if [ -d /.singularity.d/libs ]; then export LD_LIBRARY_PATH=/.singularity.d/libs; else unset LD_LIBRARY_PATH; fi
