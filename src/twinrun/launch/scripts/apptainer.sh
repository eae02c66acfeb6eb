# Nothing of the user's shell enters the container but the job's number, for the record, and the GPUs that SLURM gave.
twinrun() {
  local name quoted=${PWD//\"/\"\"} mounts
  for name in SLURM_JOB_ID SLURM_ARRAY_TASK_ID CUDA_VISIBLE_DEVICES; do
    [ -z "${!name+set}" ] || export "APPTAINERENV_$name=${!name}"
  done
  mounts=(--mount "type=bind,\"source=$quoted\",destination=/study")
  [ -z "${scratch:-}" ] || mounts+=(--mount "type=bind,\"source=$scratch\",\"destination=$scratch\"")
  exec apptainer --quiet run ${gpu:+--nv} --cleanenv --no-home "${mounts[@]}" --pwd /study "$image" "$@"
}
