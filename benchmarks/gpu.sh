#!/usr/bin/env bash
# Everything that needs a GPU, in parts of at most nine minutes, each of which can be run again by itself:
#   benchmarks/gpu.sh PART [OUT]         PARTs are listed below; `all` runs them one after the other
# It leaves its results below OUT (default: results/<name of the card>); commit them with the code that gave them.
# DEVICE=cpu tries the script itself on a small scale, where there is no GPU; its results are worth nothing then.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python} PYTHONPATH=$PWD/src DEVICE=${DEVICE:-cuda}
card=$($PYTHON -c 'import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu")' |
  tr '[:upper:] ' '[:lower:]_')
if [ "$DEVICE" = cuda ] && [ "$card" = cpu ]; then
  echo 'gpu.sh: torch sees no CUDA device here; DEVICE=cpu tries the script without one' >&2; exit 2
fi
out=${2:-results/$card}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Which code, on what: beside every result.
{ git rev-parse HEAD 2>/dev/null || echo 'no git here'; nvidia-smi 2>/dev/null || true; } >"$out/machine.txt"

tests() { # ARCHITECTURE: determinism, resumption, draws, in fresh processes
  if [ "$DEVICE" = cpu ]; then $PYTHON -m pytest tests/training/test_numerics.py | tee "$out/check_$1.txt"; return; fi
  $PYTHON -m pytest -v -m cuda tests/training/test_cuda.py -k "$1" 2>&1 | tee "$out/check_$1.txt"
}

throughput() { # PRECISION [--channels-last]
  local small=()
  [ "$DEVICE" = cuda ] || small=(--width 0.125 --images 512 --seconds 0.3 --rounds 1)
  $PYTHON benchmarks/throughput.py --device "$DEVICE" --precision "$1" "${@:2}" "${small[@]}" \
    --out "$out/throughput_$1${2:-}.json" | tee "$out/throughput_$1${2:-}.txt"
}

cost() { # TASK PRECISION: the ladder of flags, palindromic blocks of fresh processes
  local study=$out/cost_study small=(--blocks 6 --steps 60 --warmup 30)
  [ "$DEVICE" = cuda ] || small=(--blocks 1 --steps 2 --warmup 1)
  $PYTHON benchmarks/gpu_study.py "$study" --device "$DEVICE" --precision "$2"
  (cd "$study" && $PYTHON -m twinrun cost "$1" "${small[@]}") | tee "$out/cost_$1_$2.txt"
  cp "$study"/cost/*.json "$out/"
  rm -rf "$study/prepared"
}

part() {
  case $1 in
    check_preactresnet18 | check_mobilenet_v3_small | check_resnet18) tests "${1#check_}" ;;
    check_draws) tests order ;;
    throughput) throughput tf32; throughput tf32 --channels-last; throughput bf16 --channels-last ;;
    cost_preactresnet18 | cost_mobilenet_v3_large | cost_resnet18) cost "${1#cost_}" "${PRECISION:-tf32}" ;;
    *) echo "gpu.sh: no part $1; parts: ${parts[*]} all" >&2; exit 2 ;;
  esac
}
parts=(check_preactresnet18 check_mobilenet_v3_small check_resnet18 check_draws throughput
       cost_preactresnet18 cost_mobilenet_v3_large cost_resnet18)
if [ "${1:-all}" = all ]; then for name in "${parts[@]}"; do part "$name"; done; else part "$1"; fi
