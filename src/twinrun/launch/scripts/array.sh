set -uo pipefail

mine=${runs[${SLURM_ARRAY_TASK_ID:?this script is for sbatch: bash slurm/submit.sh}]:-}
if [ -z "$mine" ]; then
  echo "twinrun: there is no array task $SLURM_ARRAY_TASK_ID: this script has 0 to $((${#runs[@]} - 1))" >&2
  exit 2
fi
restarts=${SLURM_RESTART_COUNT:-0}
echo "task $SLURM_ARRAY_TASK_ID on $(hostname), started before: $restarts, clock $(date +%s.%N): $mine"

# What this attempt has done is what is newer than this file. Both dates are those of the file server: no node's clock
# is asked.
if ! mkdir -p work || ! marker=$(mktemp work/.task-XXXXXX); then
  echo "twinrun: $PWD/work cannot be written from $(hostname): check who owns it and how it is mounted" >&2
  exit 2
fi
scratch=''
trap 'rm -rf -- "$marker" ${scratch:+"$scratch"}' EXIT

# The packed arrays go onto the node's own disk. When they do not fit, the run reads the study's own: slower, same bits.
arrays=()
if [ "$use_scratch" = yes ]; then
  base=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}
  if scratch=$(mktemp -d "$base/twinrun-XXXXXX"); then
    arrays=(--prepared "$scratch")
    for run in $mine; do
      task=${run%%/*}
      [ ! -d "$scratch/$task" ] || continue
      # The copy's SHA-256 is checked by every run before it begins.
      if ! cp -R "prepared/$task" "$scratch/$task"; then
        echo "twinrun: $base on $(hostname) has no room for prepared/$task ($(du -sh "prepared/$task" | cut -f1)):" \
          "reading it from the study folder" >&2
        rm -rf -- "$scratch"
        scratch='' arrays=()
        break
      fi
    done
  else
    echo "twinrun: $base on $(hostname) cannot be written: reading prepared/ from the study folder" >&2
  fi
fi

# USR1: the time of the job is nearly up. TERM: it is cancelled or preempted. The run at work stops at once either way; its
# last checkpoint is what the next attempt goes on from.
child='' stop=''
halt() {
  stop=$1
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap 'halt USR1' USR1
trap 'halt TERM' TERM

# Runs "$@" so that a signal is seen at once; its exit code is in $status.
attend() {
  "$@" &
  child=$!
  [ -z "$stop" ] || halt "$stop"
  wait "$child"
  status=$?
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
  done
  child=''
}

code=0
[ "$restarts" = 0 ] || options+=(--restarted)
if [ -z "$stop" ]; then
  # shellcheck disable=SC2086 # a word for each run
  attend twinrun train-chunk $mine --expect-grid "$grid" ${options[@]+"${options[@]}"} ${arrays[@]+"${arrays[@]}"}
  code=$status
fi

if [ "$stop" = USR1 ]; then
  for run in $mine; do
    if [ "work/$run/checkpoint.safetensors" -nt "$marker" ] || [ "runs/$run/record.json" -nt "$marker" ]; then
      echo 'the time is nearly up: requeued, to go on from the last checkpoint'
      rm -rf -- "$marker" ${scratch:+"$scratch"}
      exec scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    fi
  done
  echo "twinrun: the time was up before the first checkpoint: give more with --time in slurm/site.sbatch" >&2
  exit 1
fi
[ -z "$stop" ] || exit 143
exit "$code"
