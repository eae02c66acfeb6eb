set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

fail() {
  echo "twinrun: $1" >&2
  exit 2
}
[ -z "$image" ] || [ -r "$image" ] || fail "$image: no such image, or not readable: name it with twinrun slurm --image"
if [ "${1:-}" = --missing ]; then
  (twinrun slurm "${again[@]}") >/dev/null
  exec bash slurm/submit.sh
fi
command -v sbatch >/dev/null || fail 'sbatch is not here: run "bash slurm/submit.sh" where it is, outside the container'
# SLURM itself would not say why a job without a place for its log failed.
mkdir -p logs && [ -w logs ] || fail "$PWD/logs cannot be written: check who owns the folder"

after=()
if [ "$tasks" -gt 0 ]; then
  # sbatch would say "Invalid job array specification"; where SLURM names no limit, it decides.
  most=$(scontrol show config 2>/dev/null | sed -n 's/^MaxArraySize *= *\([0-9][0-9]*\)$/\1/p') || most=
  if [ -n "$most" ] && [ "$most" -gt 0 ] && [ "$tasks" -gt "$most" ]; then
    chunk=$(((tasks * again[1] + most - 1) / most))
    fail "$tasks array tasks, and SLURM here takes $most (MaxArraySize): twinrun slurm --chunk $chunk puts $chunk runs into each"
  fi
  array=$(sbatch --parsable slurm/array.sbatch) || fail 'sbatch refused slurm/array.sbatch; nothing was submitted'
  array=${array%%;*} # with more than one cluster, its name comes after
  after=(--dependency="afterany:$array")
  echo "submitted $tasks array tasks as job $array; logs/${array}_*.out"
fi
if ! finish=$(sbatch --parsable ${after[@]+"${after[@]}"} slurm/finish.sbatch); then
  [ "$tasks" = 0 ] || scancel "$array"
  fail 'sbatch refused slurm/finish.sbatch; the array was cancelled'
fi
echo "submitted what comes after them as job ${finish%%;*}; logs/finish_${finish%%;*}.out"
echo '`twinrun status` says how far it is'
