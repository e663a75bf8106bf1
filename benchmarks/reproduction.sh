#!/usr/bin/env bash
# Every number of docs/reproduction/: bash benchmarks/reproduction.sh PART...
#
# Each part may be stopped and called again: finished samplers and rows are kept in $OUT (default: reproduction) and
# reused. "books_positional:4,8" is the part `books_positional` at 4 and 8 calls.
set -euo pipefail
OUT=${OUT:-reproduction}
SAMPLERS=$OUT/samplers
# what the default of these pages chose from; today's has `forced_kl` too (benchmarks/oracles.sh)
CHOICE=(--candidates path_kl:random path_kl:halton lsd:random --held-out-sequences 16)

# no rows but those of the tables
lsd-eval() { command lsd-eval --headline-limit 1 "$@"; }

train() { # NAME OPTIONS...: a sampler, unless it is there
    local name=$1
    shift
    [[ -f $SAMPLERS/$name/scheduler_config.json ]] || lsd-train "$@" --resume --output-dir "$SAMPLERS/$name"
}

learned() { # PREFIX NAME...: folders of samplers
    local prefix=$1
    shift
    for name in "$@"; do echo "$SAMPLERS/$prefix-$name"; done
}

# ---- the books model ----

BOOKS=(--model models/books-radd --dtype bfloat16)
BOOKS_EVAL=("${BOOKS[@]}" --judge models/books-gpt2 --reference models/books-valid.txt.xz --num-samples "${BOOKS_SAMPLES:-128}"
    --temperature-nfe 8 --num-texts 1 --resume)
TEMPERATURES=(--temperatures 0.8 0.9 1.0 1.1)
POSITIONAL=(tweedie theta_rk2 theta_trapezoidal tweedie:halton_maskgit:arccos tweedie:halton remdm_cap remdm_rescale
    remdm_conf remdm_loop dndm)
BY_LOGITS=(tweedie:confidence:cosine tweedie@confidence_temperature=4.5:confidence:arccos dndm_k
    entropy_bounded entropy_bounded@gamma=30 fast_dllm_threshold fast_dllm_factor k_gillespie predictor_corrector)
BY_LOGITS_MAIN=(tweedie:confidence:cosine tweedie@confidence_temperature=4.5:confidence:arccos entropy_bounded@gamma=30)
LEARNED=(path_kl-halton path_kl-random lsd+)
CLOSE=(tweedie euler@count=bernoulli theta_trapezoidal tweedie:halton tweedie:halton_maskgit:arccos remdm_cap remdm_rescale
    remdm_conf dndm k_gillespie predictor_corrector)

books_train() {
    local common=("${BOOKS[@]}" --num-sequences 32 --batch-size 32)
    train books-path_kl-halton "${common[@]}" --method path_kl --order halton
    train books-path_kl-random "${common[@]}" --method path_kl --order random
    train books-lsd-log_score "${common[@]}" --method lsd --domain log_score
    train books-lsd+ "${common[@]}" --method lsd+ --epochs 5
    train books-lsd-score "${common[@]}" --method lsd --domain score --nfe 8
    train books-jys "${BOOKS[@]}" --method jys --num-sequences 16 --batch-size 16
}

books_positional() { lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines "${POSITIONAL[@]}" --nfe "$@" --output-dir "$OUT/books-positional"; }
books_by_logits() { lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines "${BY_LOGITS[@]}" --nfe "$@" --output-dir "$OUT/books-by-logits"; }
books_by_logits_main() { lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines "${BY_LOGITS_MAIN[@]}" --nfe "$@" --output-dir "$OUT/books-by-logits"; }
books_learned() {
    lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines --sampler $(learned books "${LEARNED[@]}") --nfe "$@" --output-dir "$OUT/books-learned"
}
books_jys() { lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines --sampler "$SAMPLERS/books-jys" --nfe "$@" --output-dir "$OUT/books-jys"; }
# its coefficients flatten the predictions, so its best temperature is lower
books_lsd() { lsd-eval "${BOOKS_EVAL[@]}" --temperatures 0.5 0.6 0.7 0.8 --baselines --sampler "$SAMPLERS/books-lsd-log_score" --nfe "$@" --output-dir "$OUT/books-lsd"; }
# the verdict: the default, what it adds to, and the best of the others, with more samples, each at its own best temperature
books_default() {
    train books-default "${BOOKS[@]}" "${CHOICE[@]}" --data models/books-train.txt.xz --nfe 4 8 16 32 64 --coefficient-sequences 64
}
books_default_rows() {
    lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines --sampler "$SAMPLERS/books-default" --nfe "$@" --output-dir "$OUT/books-default"
}
# all that are not far behind in the tables above, with as many samples; same rows as `verdict`
verdict_all() {
    mkdir -p "$OUT/verdict-all"
    [[ -f $OUT/verdict-all/metrics.jsonl || ! -f $OUT/verdict/metrics.jsonl ]] || cp "$OUT/verdict/metrics.jsonl" "$OUT/verdict-all"
    lsd-eval "${BOOKS[@]}" --judge models/books-gpt2 --reference models/books-valid.txt.xz --num-samples 512 --num-texts 1 --resume \
        --temperatures 0.9 1.0 1.1 --temperature-nfe 8 --baselines "${CLOSE[@]}" \
        --sampler $(learned books default path_kl-halton path_kl-random lsd+ jys) --nfe "$@" --output-dir "$OUT/verdict-all"
}
# numbers of calls that it was not trained for
books_between() {
    lsd-eval "${BOOKS[@]}" --judge models/books-gpt2 --reference models/books-valid.txt.xz --num-samples 512 --num-texts 1 --resume \
        --temperatures 1.0 --baselines --sampler $(learned books default path_kl-halton) --nfe "$@" --output-dir "$OUT/books-between"
}
# at the temperature that both have there
verdict_1024() {
    lsd-eval "${BOOKS[@]}" --judge models/books-gpt2 --reference models/books-valid.txt.xz --num-samples 1024 --num-texts 1 --resume \
        --temperatures 1.0 --baselines tweedie:halton --sampler "$SAMPLERS/books-default" --nfe "$@" --output-dir "$OUT/verdict-1024"
}
verdict() {
    lsd-eval "${BOOKS[@]}" --judge models/books-gpt2 --reference models/books-valid.txt.xz --num-samples 512 --num-texts 1 --resume \
        --temperatures 0.9 1.0 1.1 --temperature-nfe 8 --baselines tweedie tweedie:halton tweedie:halton_maskgit:arccos \
        --sampler $(learned books default path_kl-halton) --nfe "$@" --output-dir "$OUT/verdict"
}

# ---- the rules of 2025 and 2026 on the books ----

RULES=(tweedie:dus tweedie:bisection tweedie@minimal_gap=8:margin:cosine tweedie:margin:cosine tweedie@count=llada:confidence p2 random_steps)
books_rules() { lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines "${RULES[@]}" --nfe "$@" --output-dir "$OUT/books-rules"; }
# rules that choose their calls, over a constant
BOOKS_SWEPT=(entropy_bounded@gamma=8/32/128 fast_dllm_threshold@threshold=0.01/0.03/0.07 klass@kl_threshold=0.5/1/2,confidence_threshold=0.02
    credit_decoding@threshold=0.03/0.1/0.2 mean_field@threshold=0.55/0.6,block_length=32 wino@threshold_back=0.001/0.01/0.1,threshold=0.03
    prophet@early=0.5/0.6/0.7 punt@epsilon=0.3/3/20)
books_swept() {
    lsd-eval "${BOOKS_EVAL[@]}" "${TEMPERATURES[@]}" --temperature-samples 32 --sampler models/books-default \
        --baselines tweedie tweedie:halton "${BOOKS_SWEPT[@]}" --nfe "$@" --output-dir "$OUT/books-swept"
}

# ---- a SEDD of novels: the paper's table on what it was made for ----

NOVELS=(--model models/books-sedd --dtype bfloat16)
NOVELS_EVAL=("${NOVELS[@]}" --judge models/books-gpt2 --reference models/books-valid.txt.xz --num-samples "${BOOKS_SAMPLES:-128}"
    --temperature-nfe 8 --num-texts 1 --resume)
# as many tokens as its scores say
NOVELS_BASELINES=(euler@count=bernoulli tweedie@count=bernoulli theta_rk2 theta_trapezoidal)
NOVELS_LEARNED=(jys lsd-score lsd-log_score lsd+ lsd+-strict)
novels_train() {
    local teacher=("${NOVELS[@]}" --num-sequences 32 --batch-size 32 --teacher-steps 128 --nfe 8 16 32 64)
    local paper=("${teacher[@]}" --count bernoulli --solver euler)
    train novels-lsd+ "${paper[@]}" --method lsd+ --epochs 5
    train novels-lsd+-strict "${paper[@]}" --method lsd+ --epochs 5 --relaxation 0
    train novels-lsd-score "${paper[@]}" --method lsd --domain score --epochs 5
    train novels-lsd-log_score "${paper[@]}" --method lsd --domain log_score --epochs 5
    train novels-jys "${paper[@]}" --method jys
    train novels-path_kl-halton "${teacher[@]}" --method path_kl --order halton
}
novels_baselines() { lsd-eval "${NOVELS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines "${NOVELS_BASELINES[@]}" tweedie:halton --nfe "$@" --output-dir "$OUT/novels-baselines"; }
novels_learned() {
    lsd-eval "${NOVELS_EVAL[@]}" "${TEMPERATURES[@]}" --baselines --sampler $(learned novels jys lsd-score lsd+ lsd+-strict path_kl-halton) --nfe "$@" --output-dir "$OUT/novels-learned"
}
# its coefficients flatten the predictions, as on the books model
novels_log_score() {
    lsd-eval "${NOVELS_EVAL[@]}" --temperatures 0.5 0.6 0.7 0.8 --baselines --sampler $(learned novels lsd-log_score) --nfe "$@" --output-dir "$OUT/novels-log_score"
}
# as in the paper: every sampler at temperature 1
novels_paper() {
    lsd-eval "${NOVELS_EVAL[@]}" --temperatures 1 --baselines "${NOVELS_BASELINES[@]}" --sampler $(learned novels "${NOVELS_LEARNED[@]}") --nfe "$@" --output-dir "$OUT/novels-paper"
}

# ---- the oracle of 2602.19619: letters of a text, at its size ----

LETTERS=(--model hmm:models/books-train.txt.xz,L=1024)
LETTERS_EVAL=("${LETTERS[@]}" --num-samples 128 --batch-size 128 --resume)
letters_theirs() { # few calls
    lsd-eval "${LETTERS_EVAL[@]}" --nfe "$@" --output-dir "$OUT/letters" \
        --baselines tweedie tweedie@count=llada:confidence remdm_loop remdm_conf
}
letters_slow() { lsd-eval "${LETTERS_EVAL[@]}" --nfe "$@" --output-dir "$OUT/letters-slow" --baselines tweedie tweedie@count=llada:confidence; }
letters_ours() {
    train letters-path_kl-halton "${LETTERS[@]}" --num-sequences 16 --method path_kl --order halton --nfe "$@"
    lsd-eval "${LETTERS_EVAL[@]}" --nfe "$@" --output-dir "$OUT/letters-ours" --sampler $(learned letters path_kl-halton) \
        --baselines tweedie:halton tweedie:dus tweedie:bisection
}

# ---- the frontier at matched entropy ----

frontier() { # NFE SAMPLER...: learned ones with a leading "books-"
    local nfe=$1 plain=() folders=()
    shift
    for name in "$@"; do
        if [[ $name == books-* ]]; then folders+=("$SAMPLERS/$name"); else plain+=("$name"); fi
    done
    lsd-eval "${BOOKS_EVAL[@]}" --temperature-nfe "$nfe" --nfe "$nfe" --frontier --temperatures 0.7 0.8 0.9 1.0 1.1 \
        --baselines "${plain[@]}" --sampler "${folders[@]}" --output-dir "$OUT/frontier-$nfe"
}
FRONTIER=(tweedie tweedie@confidence_temperature=4.5:confidence:arccos tweedie:halton books-lsd-log_score books-lsd+
    books-path_kl-halton)
frontier_8() { frontier 8 "${FRONTIER[@]}"; }
frontier_16() { frontier 16 tweedie books-lsd+ books-path_kl-halton; }

# ---- countdown: the exact oracle, and a trained SEDD ----

ORACLE=(--model countdown:V=32,L=256)
ORACLE_EVAL=("${ORACLE[@]}" --num-samples 512 --resume)
SEDD=(--model models/countdown-sedd)
SEDD_EVAL=("${SEDD[@]}" --oracle countdown:V=32,L=256 --num-samples 128 --resume)
COUNTDOWN=(tweedie euler euler@count=bernoulli theta_rk2 theta_trapezoidal tweedie:confidence:cosine
    tweedie@confidence_temperature=4.5:confidence:arccos tweedie:halton_maskgit:arccos tweedie:halton remdm_cap
    remdm_rescale remdm_conf remdm_loop dndm dndm_k entropy_bounded@gamma=1 entropy_bounded@gamma=4 entropy_bounded@gamma=16 k_gillespie
    predictor_corrector fast_dllm_threshold fast_dllm_factor)
COUNTDOWN_LEARNED=(jys lsd-score lsd-log_score lsd+ path_kl-random path_kl-halton)
SEDD_LEARNED=(lsd-score lsd-log_score lsd+ path_kl-random path_kl-halton)

oracle_train() {
    local common=("${ORACLE[@]}" --num-sequences 64 --nfe 2 4 8 16 32 64)
    train oracle-jys "${common[@]}" --method jys
    train oracle-lsd-score "${common[@]}" --method lsd --domain score
    train oracle-lsd-log_score "${common[@]}" --method lsd --domain log_score
    train oracle-lsd+ "${common[@]}" --method lsd+
    train oracle-path_kl-random "${common[@]}" --method path_kl --order random
    train oracle-path_kl-halton "${common[@]}" --method path_kl --order halton
}
oracle_default() {
    train oracle-default "${ORACLE[@]}" "${CHOICE[@]}" --num-sequences 64 --nfe 2 4 8 16 32 64
    lsd-eval "${ORACLE_EVAL[@]}" --baselines tweedie --sampler $(learned oracle default) --nfe 2 4 8 16 32 64 --output-dir "$OUT/oracle-default"
}
oracle_baselines() { lsd-eval "${ORACLE_EVAL[@]}" --baselines "${COUNTDOWN[@]}" --nfe "$@" --output-dir "$OUT/oracle"; }
oracle_all() {
    lsd-eval "${ORACLE_EVAL[@]}" --baselines "${COUNTDOWN[@]}" --sampler $(learned oracle "${COUNTDOWN_LEARNED[@]}") --nfe "$@" --output-dir "$OUT/oracle"
}

# SEDD's scores are not normalised: Bernoulli counts, as in the paper, reveal as many tokens as they say
SEDD_TEACHER=("${SEDD[@]}" --num-sequences 16 --batch-size 16 --teacher-steps 256)
SEDD_TRAIN=("${SEDD_TEACHER[@]}" --count bernoulli --solver euler --epochs 5)
sedd_train() {
    train sedd-lsd-score "${SEDD_TRAIN[@]}" --method lsd --domain score
    train sedd-lsd-log_score "${SEDD_TRAIN[@]}" --method lsd --domain log_score
    train sedd-path_kl-random "${SEDD_TEACHER[@]}" --method path_kl --order random
    train sedd-path_kl-halton "${SEDD_TEACHER[@]}" --method path_kl --order halton
    train sedd-lsd+ "${SEDD_TRAIN[@]}" --method lsd+
    train sedd-jys "${SEDD_TRAIN[@]}" --method jys
}
SEDD_MAIN=(tweedie euler@count=bernoulli tweedie@count=bernoulli theta_trapezoidal
    tweedie@confidence_temperature=4.5:confidence:arccos tweedie:halton_maskgit:arccos tweedie:halton remdm_conf dndm)
sedd_main() { lsd-eval "${SEDD_EVAL[@]}" --baselines "${SEDD_MAIN[@]}" --nfe "$@" --output-dir "$OUT/sedd-baselines"; }
sedd_baselines() { lsd-eval "${SEDD_EVAL[@]}" --baselines "${COUNTDOWN[@]}" tweedie@count=bernoulli --nfe "$@" --output-dir "$OUT/sedd-baselines"; }
sedd_learned() {
    lsd-eval "${SEDD_EVAL[@]}" --baselines --sampler $(learned sedd "${SEDD_LEARNED[@]}") --nfe "$@" --output-dir "$OUT/sedd-learned"
}
sedd_default() {
    train sedd-default "${SEDD_TEACHER[@]}" "${CHOICE[@]}" --nfe 4 8 16 32 --coefficient-sequences 64
    lsd-eval "${SEDD_EVAL[@]}" --baselines --sampler $(learned sedd default) --nfe 4 8 16 32 64 --output-dir "$OUT/sedd-default"
}
sedd_jys() { lsd-eval "${SEDD_EVAL[@]}" --baselines --sampler "$SAMPLERS/sedd-jys" --nfe "$@" --output-dir "$OUT/sedd-jys"; }
# ---- the relaxed start (the paper's table 5) ----

RELAXATIONS=(0 0.01 0.05 0.1 0.2)
relaxation_train() { # oracle or sedd
    # a coefficient of the score is 1 for a normalised denoiser, whatever the start
    local common=("${ORACLE[@]}" --num-sequences 64) domain=log_score
    [[ $1 == oracle ]] || common=("${SEDD_TRAIN[@]}") domain=score
    for share in "${RELAXATIONS[@]}"; do
        for filler in teacher random; do
            [[ $share == 0 && $filler == random ]] && continue
            local options=(--nfe 8 16 --relaxation "$share" --relaxation-filler "$filler")
            train "$1-relaxed-lsd+-$share-$filler" "${common[@]}" --method lsd+ "${options[@]}"
            train "$1-relaxed-lsd-$domain-$share-$filler" "${common[@]}" --method lsd --domain $domain "${options[@]}"
        done
    done
}
relaxation_all() { # oracle or sedd
    local which=("${ORACLE_EVAL[@]}")
    [[ $1 == oracle ]] || which=("${SEDD_EVAL[@]}")
    lsd-eval "${which[@]}" --baselines euler@count=bernoulli --sampler "$SAMPLERS/$1"-relaxed-* --nfe 8 16 --output-dir "$OUT/$1-relaxation"
}

# ---- draws as in released code ----

DRAWS=(euler@count=bernoulli euler@count=bernoulli,draws=float32_eps1e-6)
draws_oracle() { lsd-eval "${ORACLE_EVAL[@]}" --baselines "${DRAWS[@]}" --nfe 8 16 32 64 --output-dir "$OUT/oracle-draws"; }
draws_sedd() { lsd-eval "${SEDD_EVAL[@]}" --baselines "${DRAWS[@]}" --nfe 8 16 32 64 --output-dir "$OUT/sedd-draws"; }
draws_books() {
    lsd-eval "${BOOKS[@]}" --judge models/books-gpt2 --reference models/books-valid.txt.xz --num-samples 128 --temperatures 1 --resume \
        --baselines "${DRAWS[@]}" --nfe 8 16 --output-dir "$OUT/books-draws"
}

# ---- eq. 8 as printed ----

literal() {
    local common=(--num-sequences 16 --nfe 4 8 16 --method lsd+ --variant literal)
    for domain in score log_score; do
        train "oracle-literal-$domain" "${ORACLE[@]}" "${common[@]}" --domain $domain
        train "sedd-literal-$domain" "${SEDD[@]}" "${common[@]}" --domain $domain --teacher-steps 256 --count bernoulli --solver euler
    done
}

for part in "$@"; do
    IFS=:, read -r -a call <<< "$part"
    "${call[@]}"
done
