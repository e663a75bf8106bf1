#!/usr/bin/env bash
# What the default learns on exact oracles, beside five plain samplers at the same numbers of calls:
#
#     bash benchmarks/oracles.sh [FOLDER]      # each finished part is skipped when called again
#
# PARTS="sudoku4 hmm" runs some of them.
set -euo pipefail
folder=${1:-oracles}
plain="tweedie tweedie:halton tweedie:confidence:cosine tweedie:margin tweedie:entropy"

part() { # NAME MODEL NFE [BASELINES]
    local name=$1 model=$2 nfe=$3 baselines=${4:-$plain} out=$folder/$1
    [[ " ${PARTS:-$name} " == *" $name "* ]] || return 0
    [ -f "$out/report.html" ] && return 0
    # shellcheck disable=SC2086
    [ -f "$out/sampler/scheduler_config.json" ] || lsd-train --model "$model" --nfe $nfe --output-dir "$out/sampler" --resume
    # shellcheck disable=SC2086
    lsd-eval --model "$model" --sampler "$out/sampler" --nfe $nfe --num-samples 2048 --baselines $baselines \
        --output-dir "$out" --resume
}

part sudoku4 sudoku4 "2 3 4 6"
part sudoku4-clues sudoku4:clues=4 "2 3 4"
part hamming hamming "2 3 4"
part countdown-64 countdown:V=16,L=64 "4 6"
part colouring colouring "2 4 8"
part linear_code linear_code "2 4 6"
part brackets brackets "2 4 8"
part markov2 markov2 "4 8 16"
part hmm hmm "8 16" "$plain remdm_conf k_gillespie theta_trapezoidal"
part countdown countdown "4 8"
