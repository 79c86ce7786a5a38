#!/usr/bin/env bash
# Train the reference weights, on a CPU or a GPU alike; each call goes on from the last checkpoint.
#
#   train/reference.sh RUNS [SIZE [MINUTES]]
#
# RUNS is the folder of the runs, $CXREDGE_DATA that of the data sets. SIZE is edge (the default) or standard.
# MINUTES stops each configuration cleanly after that time; call again to go on. The last line says what is finished.
set -euo pipefail
usage='usage: train/reference.sh RUNS [edge|standard [MINUTES]]'
runs=${1:?$usage}
size=${2:-edge}
limit=${3:+--max-minutes $3}
: "${CXREDGE_DATA:?set it to the folder of the data sets}"
case $size in edge) width=16 ;; standard) width=32 ;; *) echo "$usage" >&2; exit 2 ;; esac

before=""
train() { # CONFIGURATION: goes on with its run, from the run before; stops the script where the time is up
  local run=$size-$1 line
  # shellcheck disable=SC2086
  line=$(cxredge train "edge-$1" --set network.width=$width --set "name=\"$run\"" \
    -o "$runs/$run" --resume ${before:+--init "$runs/$before"} $limit | tee /dev/stderr)
  case $line in *finished) ;; *) exit 0 ;; esac
  start=$before before=$run
}
average() { # the run before, with the one that it started from
  [ -e "$runs/$before-mean/weights.safetensors" ] ||
    cxredge average "$runs/$start" "$runs/$before" -o "$runs/$before-mean" >&2
  before=$before-mean
}

train augmented
train finish
train robust
train self
average
train self-again
average
cxredge export "$runs/$before" -o "$runs/$size.onnx" --parity-images "$CXREDGE_DATA/jsrt"
