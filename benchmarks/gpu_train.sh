#!/usr/bin/env bash
# Trains the molecules, garments and sudoku models side by side on one GPU.
#
#     MAX_SECONDS=450 bash benchmarks/gpu_train.sh DATA OUT
#
# DATA holds `molecules/train.smi.xz` and, in `fashion-mnist`, the four IDX files. A training decays its learning rate to
# 0 and stops MAX_SECONDS after its start; then its model is judged, in a minute or so, and whatever goes on JUDGE_SECONDS
# later is ended. OUT/NAME.tar.gz holds the folder of a model, without checkpoints, OUT/NAME.log what was printed. A
# training that fails does not stop the others. COMPILE= (empty) does without torch.compile.
set -uo pipefail
DATA=$1 OUT=$2
MAX_SECONDS=${MAX_SECONDS:-450} JUDGE_SECONDS=${JUDGE_SECONDS:-110} SAMPLES=${SAMPLES:-1000}
ROOT=$(cd "$(dirname "$0")/.." && pwd)
WORK=${WORK:-$(mktemp -d)}
MINUTES=$(awk "BEGIN { print $MAX_SECONDS / 60 }")
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
mkdir -p "$WORK" "$OUT"

train() { # NAME OPTIONS...
    local name=$1
    shift
    timeout $((MAX_SECONDS + JUDGE_SECONDS)) python3 "$ROOT/examples/train_$name.py" --output-dir "$WORK/$name" \
        --minutes "$MINUTES" --samples "$SAMPLES" ${COMPILE---compile} "$@" 2>&1 | tee "$OUT/$name.log" | sed -u "s/^/$name: /"
    echo "$name: ended with status ${PIPESTATUS[0]}, $SECONDS s after the start"
    tar -czf "$OUT/$name.tar.gz" -C "$WORK" --exclude='training_state.*' "$name"
}

train molecules --train "$DATA/molecules/train.smi.xz" --batch-size "${MOLECULES_BATCH:-1024}" --report-every 500 &
train garments --data "$DATA/fashion-mnist" --batch-size "${GARMENTS_BATCH:-512}" --report-every 250 \
    --classifier-epochs "${CLASSIFIER_EPOCHS:-12}" --guidance-scales 0 0.5 1 &
train sudoku --grids "${GRIDS:-500000}" --batch-size "${SUDOKU_BATCH:-1024}" --report-every 500 --warmup 500 --lr 2e-3 &
wait
ls -l "$OUT"
