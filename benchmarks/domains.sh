#!/usr/bin/env bash
# The tables of molecules, garments and sudoku: samplers that make exactly 2, 4, 8 and 16 calls, each at its own best
# temperature (and guidance), and rules that choose their calls, read off at the calls of the others.
#
#     bash benchmarks/domains.sh molecules garments sudoku      # parts; finished rows are skipped when called again
#
# MOLECULES is the folder of the data set (train.smi.xz, test.smi.xz), OUT that of the reports.
set -euo pipefail
OUT=${OUT:-domains}
MOLECULES=${MOLECULES:-../shared/data/molecules}
SAMPLES=${SAMPLES:-1024}
# fixed numbers of calls: orders and schedules, and the rules of 2025 and 2026 that can
EXACT=(tweedie tweedie:halton tweedie:confidence:cosine tweedie:margin:cosine tweedie:entropy:cosine
    tweedie:dus tweedie:bisection tweedie@count=llada:confidence p2 random_steps)
GAP=tweedie@minimal_gap=8:margin:cosine # for sequences, not for grids
# without noise in the choice of positions: for puzzles
SUREST=(tweedie@confidence_temperature=0:confidence tweedie@confidence_temperature=0:margin tweedie@confidence_temperature=0:entropy)
# rules that choose their calls, over a constant: for puzzles
SWEPT=(entropy_bounded@gamma=0.1/0.5/2/8 fast_dllm_threshold@threshold=0.3/0.5/0.7/0.9
    klass@confidence_threshold=0.3/0.6/0.9 credit_decoding@threshold=0.3/0.5/0.7/0.9 mean_field@threshold=0.3/0.6/0.9
    prophet@early=2/5/10 punt@epsilon=0.01/0.1/0.5)

molecules_eval() { # NAME OPTIONS...
    lsd-eval --model models/molecules --molecules --reference "$MOLECULES/test.smi.xz" --training-set "$MOLECULES/train.smi.xz" \
        --num-samples "$SAMPLES" --num-texts 1 --resume --output-dir "$OUT/$1" "${@:2}"
}
# the grid of those whose best temperature is the lowest of `molecules`
molecules_colder() {
    molecules_eval molecules --baselines "$GAP" tweedie:margin:cosine tweedie:entropy:cosine random_steps --nfe 2 4 8 16 \
        --temperatures 0.5 0.6 0.7 0.8 0.9 1 --temperature-nfe 8 --headline-limit 16
}
molecules() {
    molecules_eval molecules --sampler models/molecules-default --baselines "${EXACT[@]}" "$GAP" --nfe 2 4 8 16 --temperatures 0.7 0.8 0.9 1 \
        --temperature-nfe 8 --headline-limit 16
}
# the rules that choose their calls and come near
molecules_swept() {
    molecules_eval molecules-swept --sampler models/molecules-default --baselines tweedie entropy_bounded@gamma=0.5/2/8 \
        mean_field@threshold=0.7/0.8/0.9 --nfe 4 8 16 --temperatures 0.6 0.8 1 --temperature-nfe 8 \
        --headline-limit 16
}
# the others take more calls, or are far away at any temperature; WINO needs a network that takes an attention mask
molecules_swept_others() {
    molecules_eval molecules-swept-others --baselines tweedie fast_dllm_threshold@threshold=0.5/0.9/0.98 \
        klass@confidence_threshold=0.3/0.9 credit_decoding@threshold=0.5/0.9/0.98 prophet@early=5/10/20 punt@epsilon=0.1/0.5/2 \
        wino@threshold=0.3/0.6 --nfe 4 8 16 --temperatures 0.6 0.8 1 1.2 --temperature-samples 256 --temperature-nfe 8 --headline-limit 16
}

garments_eval() { # NAME OPTIONS...
    lsd-eval --model models/garments --num-samples "$SAMPLES" --num-texts 1 --resume --output-dir "$OUT/$1" "${@:2}"
}
# the guidance of each sampler, on 256 other pictures: at 4 calls for 2 and 4, at 8 calls for 8 and 16
garments_guidance() {
    local SAMPLES=256 options=(--temperatures 1 --nfe 2 --headline-limit 1)
    local few=(garments-guidance-4 --temperature-nfe 4 "${options[@]}") many=(garments-guidance --temperature-nfe 8 "${options[@]}")
    local all=("${EXACT[@]}" tweedie:halton_maskgit:arccos) ours=(--sampler models/garments-default)
    garments_eval "${few[@]}" "${ours[@]}" --baselines tweedie@count=llada:confidence tweedie:margin:cosine --guidance-scale 1 2 4
    garments_eval "${few[@]}" --baselines "${all[@]}" --guidance-scale 1 2
    garments_eval "${many[@]}" "${ours[@]}" --baselines "${all[@]}" --guidance-scale 0.5 1
    garments_eval "${many[@]}" --baselines tweedie tweedie:margin:cosine --guidance-scale 0.5 1 2 4
}
garments() { # with the guidance that `garments_guidance` found
    local options=(garments --temperatures 1 --headline-limit 16) ours=(--sampler models/garments-default)
    local few=("${options[@]}" --nfe 2 4) many=("${options[@]}" --nfe 8 16)
    garments_eval "${few[@]}" --guidance-scale 2 --baselines tweedie tweedie:margin:cosine tweedie:entropy:cosine tweedie:dus p2 random_steps
    garments_eval "${few[@]}" --guidance-scale 1 "${ours[@]}" --baselines tweedie:halton_maskgit:arccos tweedie@count=llada:confidence \
        tweedie:halton tweedie:confidence:cosine tweedie:bisection
    garments_eval "${many[@]}" --guidance-scale 0.5 "${ours[@]}" --baselines tweedie:margin:cosine tweedie:bisection
    garments_eval "${many[@]}" --guidance-scale 1 --baselines tweedie tweedie:halton_maskgit:arccos tweedie@count=llada:confidence p2 \
        tweedie:halton tweedie:confidence:cosine tweedie:entropy:cosine tweedie:dus random_steps
}
# pictures have 196 tokens that the model is seldom sure of: constants that take 3 to 17 calls
garments_swept() {
    garments_eval garments-swept --baselines tweedie entropy_bounded@gamma=24/64/128 fast_dllm_threshold@threshold=0.02/0.1/0.2 \
        credit_decoding@threshold=0.1/0.3 klass@kl_threshold=0.1/0.3,confidence_threshold=0.05 mean_field@threshold=0.5/0.52 \
        prophet@early=1/1.1 punt@epsilon=10/30 --nfe 4 8 16 --temperatures 1 --guidance-scale 1 2 --temperature-samples 256 \
        --headline-limit 16
}

sudoku_eval() { # NAME OPTIONS...
    lsd-eval --model models/sudoku --tasks sudoku:clues=30 --num-samples "$SAMPLES" --resume --output-dir "$OUT/$1" "${@:2}"
}
sudoku() {
    sudoku_eval sudoku --sampler models/sudoku-default --baselines "${EXACT[@]}" "${SUREST[@]}" --nfe 2 4 8 16 --temperatures 0 1 \
        --temperature-nfe 8 --headline-limit 16
}
sudoku_swept() { sudoku_eval sudoku-swept --sampler models/sudoku-default --baselines tweedie "${SWEPT[@]}" --nfe 4 8 16 --temperatures 0 --headline-limit 16; }

for part in "$@"; do "$part"; done
