#!/bin/sh
# bench/parts.sh — what routers, selections and kinds of experts cost: training steps of recipes/tales.yaml with each,
# beside the recipe's own linear router, top-k and feed-forward experts (bench/parts.md).
#
#   sh bench/parts.sh [routers|selections|experts]…     every part once a round, ROUNDS (3) rounds in turn; then the table
#   RAW=FILE sh bench/parts.sh …                        keeps the measurements in FILE, adding to what is there
#
# A measurement is the time per token in units of the matrix products' own speed during the run, which takes out the
# clock, over that of the plain recipe in the same round; operations per token come from the same run.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
raw=${RAW:-$dir/raw}

# group | name | lines of the recipe's "coe" object, parted by semicolons | operations that are no matrix products of the
# count: attention over 128.5 tokens on average, two products forward and five backward, in millions per token
parts() {
    cat <<'PARTS'
all|plain|
routers|two_layer, width 128|router: { kind: two_layer, width: 128 }
routers|cosine, width 64, learned|router: { kind: cosine, width: 64, scale: learned }
routers|gru, width 64|router: { kind: gru, width: 64 }
routers|rnn, width 64|router: { kind: rnn, width: 64 }
routers|gating_residual|router: gating_residual
routers|pre_gated|router: pre_gated
routers|frozen|router: frozen
routers|segment|router: { kind: segment, reads: previous }
routers|similarity|router: similarity|3.31
routers|attention|router: attention|4.34
routers|uncertainty, 5 passes|router: uncertainty
routers|tasks, 4 of them in 2 groups|router: { kind: tasks, tasks: 4, groups: 2, group_experts: 1, task_experts: 1 }
selections|top_p 0.4, at most 4|selection: { kind: top_p, p: 0.4, max: 4 }
selections|threshold, half of the best|selection: { kind: threshold, of: relative, value: 0.5, max: 4 }
selections|hybrid|selection: hybrid; renormalize: false
selections|grouped|selection: grouped; groups: 2; groups_kept: 2
selections|random|selection: random; losses: []
selections|growing_k|selection: { kind: growing_k, from: 2 }
selections|sinkhorn, every step|selection: { kind: sinkhorn, probability: 1 }; losses: []
selections|transport, 20 rounds|selection: { kind: transport, rounds: 20 }; losses: []
selections|des_seq|selection: des_seq
selections|des_vote, core 8|selection: { kind: des_vote, core: 8 }
selections|expert_choice|selection: expert_choice; losses: []
selections|top_k, capacity 1.25|capacity: { factor: 1.25 }
experts|copy, 2 of 16|n_identity: 2
experts|null, 2 of 16|n_null: 2
experts|const, 2 of 16|experts: [{ kind: ffn, n: 14, expert_ffn: 112 }, { kind: const, n: 2 }]
experts|film|experts: [{ kind: film, n: 16, expert_ffn: 112 }]
experts|lora, rank 8|experts: [{ kind: lora, n: 16, rank: 8, alpha: 16 }]
experts|rank1|experts: [{ kind: rank1, n: 16, alpha: 16 }]; score: sigmoid
experts|latent|experts: [{ kind: latent, n: 16, expert_ffn: 112, latent: 64, group: 4 }]
experts|gru|experts: [{ kind: ffn, n: 14, expert_ffn: 112 }, { kind: gru, n: 2, expert_ffn: 64 }]
experts|ternary|experts: [{ kind: ternary, n: 16, expert_ffn: 112 }]
experts|segment|router: segment; experts: [{ kind: segment, n: 16, hidden: 32 }]
experts|attention heads, 2 of 4 with their queries|attention_experts: { top_k: 2, unit_weights: true }|-2.07
experts|beside q, k, v, o: 2 of 8, rank 8|projection_experts: { n: 8, rank: 8, selection: top_k, top_k: 2, targets: [q, k, v, o] }
PARTS
}

# The recipe with some lines of its "coe" object replaced or added, rows of 256 tokens, 4 a step
recipe() {
    awk -v lines="$1" '
        BEGIN {
            n = split(lines, line, "; ")
            for (i = 1; i <= n; i++) { key = line[i]; sub(/:.*/, "", key); taken[key] = 1 }
        }
        /^  sequence:/ { print "  sequence: 256"; next }
        /^  batch:/ { print "  batch: 4"; next }
        /^      [a-z_]+:/ { key = $1; sub(":", "", key); if (key in taken) next }
        { print }
        /^    coe:/ { for (i = 1; i <= n; i++) if (line[i] != "") print "      " line[i] }' recipes/tales.yaml
}

measure() { # GROUP NAME SETTINGS MORE
    recipe "$3" >"$dir/part.yaml"
    ./coe bench train "$dir/part.yaml" -r "${RUNS:-5}" -j 2>"$dir/error" >"$dir/out" || { cat "$dir/error" >&2; return; }
    tr ',{}' '\n' <"$dir/out" | awk -F': *' -v part="$1|$2" -v more="${4:-0}" '
        /"median"/ { median = $2 }
        /"gflops"/ { gflops = $2 }
        /"matrix_gflops"/ { matrix = $2 }
        END { printf "%s|%.6g|%.6g\n", part, gflops / median * 1e3 + more, matrix / median }' >>"$raw"
}

# Every measurement over the plain recipe's before it; medians of rounds
table() {
    awk -F'|' '
        function median(list, v, n, i, j, t) {
            n = split(list, v, " ")
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
            return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
        }
        $2 == "plain" { flops = $3; cost = $4; next }
        {
            key = $1 "|" $2
            if (!(key in group)) { order[++count] = key; group[key] = $1; name[key] = $2 }
            more[key] = more[key] " " ($3 / flops - 1) * 100
            time[key] = time[key] " " ($4 / cost - 1) * 100
            above[key] = above[key] " " ($4 / cost - $3 / flops) * 100
        }
        END {
            for (i = 1; i <= count; i++) {
                key = order[i]
                if (group[key] != last)
                    printf "\n| %s | operations it adds | time it adds | above |\n| --- | --: | --: | --: |\n", group[key]
                last = group[key]
                printf "| %s | %.1f %% | %.1f %% | %.1f %% |\n", name[key], median(more[key]), median(time[key]),
                       median(above[key])
            }
        }' "$raw"
}

for round in $(seq "${ROUNDS:-3}"); do
    parts | while IFS='|' read -r group name lines more; do
        case " all ${*:-routers selections experts} " in *" $group "*) measure "$group" "$name" "$lines" "$more" ;; esac
    done
done
case " ${*:-routers selections experts} " in *" all "*) ;; *) table ;; esac
