#!/usr/bin/env bash
# A small trained network on 4 x 4 sudoku: which positions `forced_kl` learns to reveal, from real grids and by right
# answers, beside plain samplers and swept thresholds.
#
#     bash benchmarks/small_sudoku.sh [FOLDER]      # each finished part is skipped when called again
set -euo pipefail
folder=${1:-small-sudoku}
model=$folder/model
clues=sudoku:clues=4,size=4
plain="tweedie tweedie:halton tweedie:confidence:cosine tweedie:margin tweedie:entropy"
swept="entropy_bounded@gamma=0.001/0.01/0.03/0.1/0.3/0.6/1/1.5/2
    fast_dllm_threshold@threshold=0.3/0.4/0.5/0.55/0.6/0.65/0.7/0.8/0.9"

learn() { # NAME OPTIONS...
    local out=$folder/$1
    [ -f "$out/scheduler_config.json" ] || lsd-train --model "$model" "${@:2}" --output-dir "$out" --resume
}

[ -f "$model/training_summary.json" ] || python "$(dirname "$0")/../examples/train_sudoku4.py" --output-dir "$model"

# the model contradicts some of its own sequences, so real ones tell more; four times the default search
learn empty --data "$model/data.jsonl" --method forced_kl --search-evaluations 262144 --nfe 4 6
[ -f "$folder/eval-empty/report.html" ] ||
    lsd-eval --model "$model" --oracle sudoku4 --sampler "$folder/empty" --nfe 4 6 16 --num-samples 2048 --headline-limit 16 \
        --baselines $plain --output-dir "$folder/eval-empty" --resume

learn answers --tasks $clues --objective answers --nfe 2 3 4 8
[ -f "$folder/eval-clues/report.html" ] ||
    lsd-eval --model "$model" --tasks $clues --sampler "$folder/answers" --nfe 2 3 4 8 12 --num-samples 2048 --temperatures 0 1 \
        --baselines tweedie tweedie:confidence tweedie:margin $swept --headline-limit 12 --output-dir "$folder/eval-clues" --resume
