#!/usr/bin/env bash
# What the default learns on exact oracles, beside five plain samplers and the rules of 2025 and 2026 at the same numbers
# of calls; and, on some, rules that choose their number of calls:
#
#     bash benchmarks/oracles.sh [FOLDER]      # finished rows are skipped when called again
#     python benchmarks/verdicts.py oracles/* --ours sampler
#
# PARTS="sudoku4 hmm" runs some of them.
set -euo pipefail
folder=${1:-oracles}
plain="tweedie tweedie:halton tweedie:confidence:cosine tweedie:margin tweedie:entropy"
rules="tweedie:dus tweedie:bisection tweedie@minimal_gap=8:margin:cosine tweedie@count=llada:confidence p2 random_steps"
# rules that choose their calls, over a constant
constants="entropy_bounded@gamma=0.1/0.5/2 fast_dllm_threshold@threshold=0.5/0.7/0.9 klass@confidence_threshold=0.3/0.6/0.9
    credit_decoding@threshold=0.5/0.7/0.9 mean_field@threshold=0.5/0.6/0.9 prophet@early=1/2/5 punt@epsilon=0.01/0.1/0.5
    wino@threshold=0.5/0.7/0.9"

evaluate() { # FOLDER MODEL NFE OPTIONS...
    # shellcheck disable=SC2086
    lsd-eval --model "$2" --nfe $3 --num-samples 2048 --output-dir "$1" --resume "${@:4}"
}
part() { # NAME MODEL NFE [BASELINES]
    local name=$1 model=$2 nfe=$3 baselines=${4:-$plain} out=$folder/$1
    [[ " ${PARTS:-$name} " == *" $name "* ]] || return 0
    # shellcheck disable=SC2086
    [ -f "$out/sampler/scheduler_config.json" ] || lsd-train --model "$model" --nfe $nfe --output-dir "$out/sampler" --resume
    # the rules first, so that the report is that of the plain samplers; the rows of both stay
    # shellcheck disable=SC2086
    evaluate "$out" "$model" "$nfe" --baselines $rules --headline-limit ${nfe##* }
    # shellcheck disable=SC2086
    evaluate "$out" "$model" "$nfe" --sampler "$out/sampler" --baselines $baselines
}
swept() { # NAME MODEL NFE, after the part of that name
    local out=$folder-swept/$1
    [[ " ${PARTS:-$1} " == *" $1 "* ]] || return 0
    # shellcheck disable=SC2086
    evaluate "$out" "$2" "$3" --sampler "$folder/$1/sampler" --baselines tweedie $constants --headline-limit ${3##* }
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
swept sudoku4 sudoku4 "2 3 4 6"
swept sudoku4-clues sudoku4:clues=4 "2 3 4"
swept colouring colouring "2 4 8"
swept brackets brackets "2 4 8"
