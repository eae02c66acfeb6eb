# shellcheck shell=bash
# Timed steps, one after the other or beside each other; sourced. `end_steps` ends whatever is still at work.
steps=$(mktemp -d "${TMPDIR:-/tmp}/twinrun-steps-XXXXXX")
declare -A jobs=()
times=()

# Every step is a process group of its own, so that it ends with all its children; the shell itself only waits, and so
# hears a signal at once.
begin() { # begin NAME COMMAND...
  local name=$1
  shift
  set -m
  {
    begun=$SECONDS
    "$@"
    echo $((SECONDS - begun)) >"$steps/$name.seconds"
  } </dev/null &
  jobs[$name]=$!
  set +m
}

ended() { # waits for the step, shows what it kept to itself, and fails as it does
  local name=$1 code=0
  wait "${jobs[$name]}" || code=$?
  unset "jobs[$name]"
  [ ! -e "$steps/$name.log" ] || cat "$steps/$name.log"
  if ((code)); then
    echo "== failed ($code): $name" >&2
    exit $code
  fi
  times+=("$(printf '%5d s  %s' "$(cat "$steps/$name.seconds")" "$name")")
}

step() { # step NAME COMMAND...
  echo "== $1"
  begin "$@"
  ended "$1"
}

# A step beside those that follow; what it says is shown by `finished`.
start() { # start NAME COMMAND...
  local name=$1
  shift
  echo "== begun: $name"
  begin "$name" "$@" >"$steps/$name.log" 2>&1
}

finished() { # finished NAME
  echo "== $1, begun before"
  ended "$1"
}

# Asks every step to end, then calls end_what_they_started, and ends what is still there after half a minute.
end_steps() {
  local group tries
  [ "${#jobs[@]}" -gt 0 ] || return 0
  for group in "${jobs[@]}"; do
    kill -TERM -- "-$group" 2>/dev/null || true
  done
  ! declare -F end_what_they_started >/dev/null || { sleep 0.5; end_what_they_started; }
  for group in "${jobs[@]}"; do
    for ((tries = 0; tries < 300; tries++)); do
      kill -0 -- "-$group" 2>/dev/null || continue 2
      sleep 0.1
    done
    kill -KILL -- "-$group" 2>/dev/null || true
  done
}

trap 'end_steps; rm -rf "$steps"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
