#!/usr/bin/env bash
# What is measured on an accelerator, in under 5 minutes: bash benchmarks/gpu.sh [OUTPUT_DIR]
#
# Tests that need one, time inside the scheduler, whole generations, and what it takes to learn a sampler.
# PARTS="tests step" does some of the parts alone. The part `language`, answers by layers of LLaDA and Dream, is not among those done by default.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${1:-gpu-output}
PARTS=${PARTS:-tests step generation training}
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD:$PWD/benchmarks:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
mkdir -p "$OUT"

part() { # NAME COMMAND...: its output goes to a file too; one that fails stops none of the others
    local name=$1
    shift
    [[ " $PARTS " == *" ${name%%-*} "* ]] || return 0
    echo "== $name: $*"
    "$@" 2>"$OUT/$name.err" | tee "$OUT/$name.txt" || { echo "failed: $name"; tail -n 20 "$OUT/$name.err"; }
}

part tests "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/sampling tests/test_scheduling_lsd.py \
    tests/denoisers/test_block_generation.py
for length in 1024 4096; do
    for vocab in 50257 126464; do
        part "step-$length-$vocab" "$PYTHON" benchmarks/step.py --device cuda --dtype bfloat16 --batch 16 --length "$length" \
            --vocab "$vocab" --steps 32 --ours-only
    done
done
part generation "$PYTHON" benchmarks/generation.py --device cuda --dtype bfloat16 --batch 16 --steps 64
part generation-compiled "$PYTHON" benchmarks/generation.py --device cuda --dtype bfloat16 --batch 16 --steps 64 --compile
language=(benchmarks/language.py --device cuda --dtype bfloat16 --models llada dream --layers 8 --batch 1 8 --samplers counts threshold --steps 64 \
    --timed-blocks 2 --memory)
part language "$PYTHON" "${language[@]}"
part language-compiled "$PYTHON" "${language[@]}" --compile
part training-small "$PYTHON" benchmarks/training_cost.py --model sedd-small --device cuda --dtype bfloat16 --num-sequences 16 --batch-size 16
part training-medium "$PYTHON" benchmarks/training_cost.py --model sedd-medium --device cuda --dtype bfloat16 --num-sequences 16 \
    --batch-size 16 --recipes path_kl
