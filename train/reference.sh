#!/usr/bin/env bash
# Train the reference weights, on a CPU or a GPU alike; each call goes on from the last checkpoint.
#
#   train/reference.sh RUNS [SIZE [MINUTES]]
#
# Five runs, the mean of the last two (RUNS/SIZE-mean), and its model (RUNS/SIZE.onnx). RUNS is the folder of the runs,
# $CXREDGE_DATA that of the data sets jsrt, cohen and nih. SIZE is edge (the default) or standard.
# MINUTES stops each configuration cleanly after that time; call again to go on. The last line says what is finished.
set -euo pipefail
usage='usage: train/reference.sh RUNS [edge|standard [MINUTES]]'
runs=${1:?$usage}
size=${2:-edge}
limit=${3:+--max-minutes $3}
: "${CXREDGE_DATA:?set it to the folder of the data sets}"
case $size in edge) width=16 ;; standard) width=32 ;; *) echo "$usage" >&2; exit 2 ;; esac

before=""
for step in augmented finish robust long distilled; do
  run=$size-$step
  # shellcheck disable=SC2086
  line=$(cxredge train "edge-$step" --set network.width=$width --set "name=\"$run\"" \
    -o "$runs/$run" --resume ${before:+--init "$runs/$before"} $limit | tee /dev/stderr)
  case $line in *finished) before=$run ;; *) exit 0 ;; esac
done
mean=$runs/$size-mean
if [ ! -e "$mean/weights.safetensors" ] || [ "$mean/weights.safetensors" -ot "$runs/$before/weights.safetensors" ]; then
  rm -f "$mean/config.toml" "$mean/weights.safetensors"
  cxredge average "$runs/$size-long" "$runs/$before" -o "$mean"
fi
cxredge export "$mean" -o "$runs/$size.onnx" --folds shortcut,pool-conv,up-phases,head \
  --parity-images "$CXREDGE_DATA/jsrt"
