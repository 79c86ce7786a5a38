#!/usr/bin/env bash
# Train the reference weights, on a CPU or a GPU alike; each call goes on from the last checkpoint.
#
#   train/reference.sh RUNS [MINUTES]
#
# RUNS is the folder of the runs, $CXREDGE_DATA that of the data sets. MINUTES stops each configuration
# cleanly after that time; call again to go on. The last line says what is finished.
set -euo pipefail
runs=${1:?usage: train/reference.sh RUNS [MINUTES]}
limit=${2:+--max-minutes $2}
: "${CXREDGE_DATA:?set it to the folder of the data sets}"

before=""
for config in edge-augmented edge-finish edge-robust; do
  # shellcheck disable=SC2086
  line=$(cxredge train "$config" -o "$runs/$config" --resume ${before:+--init "$runs/$before"} $limit | tee /dev/stderr)
  case $line in *finished) before=$config ;; *) exit 0 ;; esac
done
cxredge export "$runs/$before" -o "$runs/$before.onnx" --parity-images "$CXREDGE_DATA/jsrt"
