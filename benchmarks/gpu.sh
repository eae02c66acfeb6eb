#!/usr/bin/env bash
# Everything that needs a GPU, in parts of at most nine minutes, each of which can be run again by itself:
#   benchmarks/gpu.sh PART [OUT]         PARTs are listed below; `all` runs them one after the other
# Times are estimates, for none of it has run on a GPU yet: check_* 4 minutes each (some 30 processes of 8 s),
# resume_* 4 (six runs of 300 short epochs), throughput 7, sweeping 7. A block of cost_* is 16 processes of 6 to 8 s, so that
# the six blocks take 10 to 13 minutes: a part begins no block that would not end within nine, says how many there are, exits
# 3 while some are missing, and goes on with them when it is called again. (`all` has no limit; LIMIT sets another one.)
# evidence_* are studies of 70 runs on real images, in the folder that DATA names (evidence.py says which files): EPOCHS sets
# their length (once: a study that is begun keeps it), JOBS how many runs share the card (default: 4; breast 1, so that
# energy is known). They stop at the limit and go on when called again; on another machine, too, when
# OUT/evidence_*_study/runs is carried there.
# It leaves its results below OUT (default: results/<name of the card>); commit them with the code that gave them.
# DEVICE=cpu tries the script itself on a small scale, where there is no GPU; its results are worth nothing then, and
# are in a temporary folder where no OUT is given.
set -euo pipefail
[ -z "${DATA:-}" ] || export DATA=$(realpath "$DATA")
[ -z "${2:-}" ] || set -- "$1" "$(realpath --canonicalize-missing "$2")"
cd "$(dirname "$0")/.."
parts=(check_preactresnet18 check_mobilenet_v3_small check_resnet18 check_draws
       resume_preactresnet18 resume_mobilenet_v3_small resume_resnet18 throughput sweeping
       cost_preactresnet18 cost_mobilenet_v3_large cost_resnet18
       evidence_breast evidence_cracks evidence_cifar10)
if [[ " ${parts[*]} all " != *" ${1:-all} "* ]]; then
  echo "gpu.sh: no part $1; parts: ${parts[*]} all" >&2; exit 2
fi
limit=${LIMIT:-540} # seconds of a cost or evidence part
export PYTHON=${PYTHON:-python} PYTHONPATH=$PWD/src DEVICE=${DEVICE:-cuda}
card=$($PYTHON -c 'import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu")' |
  tr '[:upper:] ' '[:lower:]_')
if [ "$DEVICE" = cuda ] && [ "$card" = cpu ]; then
  echo 'gpu.sh: torch sees no CUDA device here; DEVICE=cpu tries the script without one' >&2; exit 2
fi
if [ "$DEVICE" = cpu ]; then out=${2:-$(mktemp -d "${TMPDIR:-/tmp}/twinrun-gpu-XXXXXX")}; else out=${2:-results/$card}; fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
echo "gpu.sh: results are in $out"

# The CUDA tests of a part, by words of their names; `resnet18` alone would be preactresnet18, too.
chosen() {
  case $1 in
    check_draws) echo test_order_and_crops ;;
    check_resnet18) echo 'resnet18 and not preactresnet18 and not interrupted' ;;
    resume_resnet18) echo 'resnet18 and not preactresnet18 and interrupted' ;;
    check_*) echo "${1#check_} and not interrupted" ;;
    resume_*) echo "${1#resume_} and interrupted" ;;
  esac
}

tests() { # PART: determinism, resumption, draws, in fresh processes
  if [ "$DEVICE" = cpu ]; then $PYTHON -m pytest tests/training/test_numerics.py | tee "$out/$1.txt"; return; fi
  $PYTHON -m pytest -v -m cuda tests/training/test_cuda.py -k "$(chosen "$1")" 2>&1 | tee "$out/$1.txt"
}

throughput() { # PRECISION [--channels-last]
  local small=()
  [ "$DEVICE" = cuda ] || small=(--width 0.125 --images 512 --seconds 0.3 --rounds 1)
  $PYTHON benchmarks/throughput.py --device "$DEVICE" --precision "$1" "${@:2}" "${small[@]}" \
    --out "$out/throughput_$1${2:-}.json" | tee "$out/throughput_$1${2:-}.txt"
}

sweeping() { # how many runs an hour, N at a time on one card
  local small=()
  [ "$DEVICE" = cuda ] || small=(--jobs 2 --runs 2 --epochs 1 --rounds 1)
  $PYTHON benchmarks/sweeping.py --device "$DEVICE" "${small[@]}" --out "$out/sweeping.json" | tee "$out/sweeping.txt"
}

cost() { # TASK PRECISION: the ladder of flags, palindromic blocks of fresh processes
  local study=$out/cost_study blocks=6 steps=(--steps 40 --warmup 20) begin=$SECONDS n before longest=0
  [ "$DEVICE" = cuda ] || { blocks=2; steps=(--steps 2 --warmup 1); }
  $PYTHON benchmarks/gpu_study.py "$study" --device "$DEVICE" --precision "$2"
  for ((n = 1; n <= blocks; n++)); do # those that are there already are kept, and cost a second
    if ((SECONDS - begin + longest > limit)); then break; fi
    before=$SECONDS
    (cd "$study" && $PYTHON -m twinrun cost "$1" "${steps[@]}" --blocks "$n") >"$out/cost_$1_$2.txt"
    ((SECONDS - before <= longest)) || longest=$((SECONDS - before))
  done
  cat "$out/cost_$1_$2.txt"
  cp "$study"/cost/*.json "$out/"
  rm -rf "$study/prepared"
  if ((n <= blocks)); then
    echo "gpu.sh: $((n - 1)) of $blocks blocks are measured; call \`benchmarks/gpu.sh cost_$1 $out\` again for the rest" >&2
    return 3
  fi
}

evidence() { # TASK: a study of real images, from packing to report
  local study=$out/evidence_$1_study begin=$SECONDS code=0 jobs=4 left
  [ "$1" != breast ] || jobs=1
  [ -n "${DATA:-}" ] || { echo 'gpu.sh: evidence needs DATA, the folder with the real images' >&2; return 2; }
  $PYTHON benchmarks/evidence.py "$1" "$DATA" "$study" --device "$DEVICE" ${EPOCHS:+--epochs "$EPOCHS"}
  twinrun() { (cd "$study" && $PYTHON -m twinrun "$@"); }
  twinrun prepare
  [ -s "$out/evidence_$1_estimate.txt" ] || twinrun plan --estimate >"$out/evidence_$1_estimate.txt"
  left=$((limit - SECONDS + begin))
  (cd "$study" && exec timeout --foreground --signal=INT --kill-after=60 $((left > 1 ? left : 1)) \
    $PYTHON -m twinrun sweep --no-record --jobs "${JOBS:-$jobs}") || code=$?
  case $code in
    0) ;;
    124 | 137)
      echo "gpu.sh: $(twinrun status | tail -1); call \`DATA=$DATA benchmarks/gpu.sh evidence_$1 $out\` again for the rest" >&2
      return 3 ;;
    *) return 1 ;; # not that of a sweep some of whose runs failed, which is 3
  esac
  twinrun collect
  twinrun locate --all | tee "$out/evidence_$1_locate.txt" || { code=$?; echo "gpu.sh: locate failed" >&2; }
  twinrun analyze
  twinrun report
  rm -rf "$out/evidence_$1"
  mkdir "$out/evidence_$1"
  cp -r "$study/params.yaml" "$study/collected" "$study/report" "$out/evidence_$1/"
  rm -rf "$study/prepared"
  return $code
}

part() {
  # Which code, on what: beside every result.
  { git rev-parse HEAD 2>/dev/null || echo 'no git here'; nvidia-smi 2>/dev/null || true; } >"$out/machine_$1.txt"
  case $1 in
    check_* | resume_*) tests "$1" ;;
    sweeping) sweeping ;;
    evidence_*) evidence "${1#evidence_}" ;;
    throughput)
      throughput tf32
      [ "$DEVICE" = cpu ] || { throughput tf32 --channels-last; throughput bf16 --channels-last; } ;;
    cost_*) cost "${1#cost_}" "${PRECISION:-tf32}" ;;
  esac
}
if [ "${1:-all}" != all ]; then part "$1"; exit; fi
failed=()
for name in "${parts[@]}"; do LIMIT=1000000 benchmarks/gpu.sh "$name" "$out" || failed+=("$name"); done
((${#failed[@]} == 0)) || { echo "gpu.sh: failed: ${failed[*]}" >&2; exit 1; }
